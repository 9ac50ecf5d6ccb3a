"""What is in memory becomes durable before an attempt says how it ended."""

import math
import time

from job.agent.loop import Loop
from job.agent.uploader import Uploader
from job.errors import BatonError, Fenced, Preempted, Transient, error_for
from job.run.head import Owner, Status

LOOK_S = 0.5  # between two looks at the deadline
PATIENCE_S = 60.0  # for a bucket out of reach, when the attempt ends with an error that it shall tell


def make_durable(
    loop: Loop, owner: Owner, uploader: Uploader | None, status: Status | None, patience_s: float = math.inf
) -> None:
    """The newest snapshot becomes durable, then head gets `status`. Raises what the uploader failed with.

    A bucket out of reach is waited for until the deadline of a notice, also of one that comes meanwhile, and no
    longer than `patience_s`.
    """
    if uploader is None:
        if status is not None:
            loop.call(lambda: owner.publish(status=status), heed="never")
        return
    if not uploader.done:
        patient_until_s = time.monotonic() + patience_s

        def give_up_s() -> float:
            deadline = loop.notice.deadline
            return patient_until_s if deadline is None else min(patient_until_s, deadline.at_s)

        uploader.stop(status=status, give_up_s=give_up_s)
        while not loop.until(lambda: uploader.done, timeout_s=LOOK_S, heed="never"):
            if time.monotonic() > give_up_s() + LOOK_S:  # the uploader cannot: it is within a try that stands still
                raise Transient(
                    "the bucket does not answer, and there is no time left to wait for it.",
                    fix="What head names is safe; the same command goes on from there.",
                )
    if uploader.error is not None:
        raise uploader.error


def save_after(error: BatonError, loop: Loop, owner: Owner, uploader: Uploader | None) -> BatonError:
    """On the way out of an attempt that met `error`: saves, releases head on a notice. The error to end with."""
    if isinstance(error, Fenced):
        return error
    release = isinstance(error, Preempted) and owner.head.status is Status.RUNNING
    try:
        make_durable(loop, owner, uploader, Status.RELEASED if release else None, PATIENCE_S)
    except Fenced as fenced:
        return fenced
    except BatonError as trouble:
        what = f"{error.what} And what is in memory could not be saved: {trouble.what}"
        # A notice promises that everything is safe; any other ending keeps its own class.
        code = trouble.exit_code if isinstance(error, Preempted) else error.exit_code
        return error_for(code, what, trouble.fix if isinstance(error, Preempted) else error.fix)
    return error
