"""The console command `baton`. Nothing but the standard library is imported before the signals are taken care of."""

import signal
import sys

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> None:
    """The command line of this process; ends it with an exit code (docs/design.md, Exit codes)."""
    if sys.argv[1:2] == ["train"]:
        # The process becomes the agent, which takes them over: until then they wait instead of killing it.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    from infra.cli.run import run

    sys.exit(run(sys.argv[1:]))
