"""What an attempt says to people at its beginning and at its end; pure."""

from collections.abc import Mapping

from job.agent.claiming import Claimed
from job.agent.restoring import Restored
from job.errors import BatonError, Preempted
from job.run.attempt import ResumedFrom
from job.views.progress import resumed_line


def beginning_lines(
    uri: str, claimed: Claimed, restored: Restored, resumed_from: ResumedFrom | None, machine: Mapping[str, str]
) -> list[str]:
    """Where it goes on from, what was lost, whom it replaces, what is not as it was."""
    lines = [] if resumed_from is None else [resumed_line(uri, resumed_from)]
    if claimed.replaced is not None:
        lines.append(f"attempt {claimed.owner.head.attempt} takes over from attempt {claimed.replaced.attempt}")
    lines += [f"warning: {bad.folder} is bad and was left out: {bad.reason}" for bad in restored.quarantined]
    for what, before, now in claimed.changed_machine(machine):
        lines.append(f"warning: another {what} than before ({now}, it was {before}): the last bits may differ")
    return lines


def end_lines(error: BatonError, claimed: Claimed | None) -> list[str]:
    """Why it ended, and what is safe."""
    if not isinstance(error, Preempted):
        return [f"error: {error}"]
    if claimed is None:
        return [f"{error.what} Nothing was changed; the same command tries again."]
    checkpoint = claimed.owner.head.checkpoint
    safe = "Nothing had been trained yet" if checkpoint is None else f"Everything is safe up to step {checkpoint.step}"
    return [f"{error.what} {safe}; the same command goes on from there."]
