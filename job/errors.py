"""Every expected failure: what it tells the user and which exit code it ends the process with.

BatonError                exit  meaning for whoever started the attempt
  UsageError                 2  the command, recipe or data is wrong; nothing was changed
  NeedsPerson                3  config, credentials, quota, memory or numbers need somebody; do not retry
  Fenced                     4  another attempt owns the run; nothing was changed
  Preempted                 75  stopped on request; everything up to the durable step is safe
  Transient                 76  trouble that may pass; try again
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every command, in the container and on the laptop (docs/design.md, Exit codes)."""

    FINISHED = 0
    BUG = 1
    USAGE = 2
    NEEDS_PERSON = 3
    FENCED = 4
    PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h
    TRANSIENT = 76


class BatonError(Exception):
    """Base of all expected failures: one clear line (what and where), one line that says what to do.

    `what` names the thing and the place; `fix` the next step. Both are printed, without a traceback.
    """

    exit_code = ExitCode.BUG

    def __init__(self, what: str, *, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\n  {self.fix}" if self.fix else self.what


class UsageError(BatonError):
    """The command line, recipe or an input file is wrong. Nothing was changed."""

    exit_code = ExitCode.USAGE


class NeedsPerson(BatonError):
    """Trying again would end the same way until somebody changes something."""

    exit_code = ExitCode.NEEDS_PERSON


class Fenced(BatonError):
    """Another attempt owns the run. This one changes nothing more."""

    exit_code = ExitCode.FENCED


class Preempted(BatonError):
    """The attempt was told to go; everything up to the durable step is safe."""

    exit_code = ExitCode.PREEMPTED


class Transient(BatonError):
    """Trouble outside the run that may pass: an attempt later may succeed."""

    exit_code = ExitCode.TRANSIENT


def error_for(exit_code: int, what: str, fix: str = "") -> BatonError:
    """The error whose exit code is `exit_code`: how a failure of the trainer is raised again by the agent."""
    for kind in (UsageError, NeedsPerson, Fenced, Preempted, Transient):
        if kind.exit_code == exit_code:
            return kind(what, fix=fix)
    return BatonError(what, fix=fix)
