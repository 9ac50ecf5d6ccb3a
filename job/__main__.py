"""The agent: the life of one attempt at the run.

    python -m job RECIPE --run URI        (the same as `baton train`)

Two processes do the work: this one owns the run in the bucket, its trainer computes. The trainer's whole state is in
this process's memory at every step, so whatever happens to the trainer, nothing but the step under way is lost.
"""

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from job import preemption

if TYPE_CHECKING:
    from job.agent.attempt import Attempt

FLUSH_S = 1.0


def main(argv: Sequence[str]) -> int:
    """One attempt; the exit code says how it ended (docs/design.md, Exit codes)."""
    notice = preemption.install()  # first of all, before the imports: from here on no signal kills the process
    from job.agent.arguments import parse
    from job.agent.attempt import Attempt
    from job.errors import BatonError
    from job.views.text import print_error

    try:
        with Attempt(parse(argv), notice) as attempt:
            try:
                live(attempt)
            except BatonError as error:
                return attempt.end(error)
            except Exception:  # a bug: what is in memory is saved as after any other end
                return attempt.end(BatonError(traceback.format_exc().rstrip()))
            return attempt.end(None)
    except BatonError as error:
        print_error(str(error))
        return error.exit_code


def live(attempt: "Attempt") -> None:
    """From the first look at the bucket to the result in it. Raises what ended the attempt before."""
    if not attempt.look():
        return  # finished already
    attempt.restore()  # while the trainer's process imports
    attempt.check()  # model, task and data: what is refused is refused before anything is changed
    if not attempt.claim():  # from here on the run is this attempt's
        return  # finished by another one meanwhile
    finished = attempt.train()
    attempt.publish_result(finished)


def flush_output() -> None:
    """Hands over what is still in the process. It may take for ever: a pipe that is full and that nobody reads."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a pipe or terminal that is gone changes no exit code
            stream.flush()


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
    except Exception:
        traceback.print_exc()
        code = 1
    flushing = threading.Thread(target=flush_output, daemon=True)
    flushing.start()
    flushing.join(FLUSH_S)
    os._exit(code)  # no thread that is left behind in a slow call holds the process up
