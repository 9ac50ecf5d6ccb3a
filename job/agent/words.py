"""What an attempt says to people at its beginning and at its end; pure."""

import re
from collections.abc import Mapping
from typing import Any

from rich.filesize import decimal

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


def plan_lines(ready: Mapping[str, Any], slots: int, available_bytes: int | None) -> list[str]:
    """What is trained, and the memory that its snapshots take; a warning when that is more than there is."""
    parameters, trained, state_bytes = ready["parameters"], ready["trained_parameters"], ready["state_bytes"]
    needed_bytes = slots * state_bytes
    lines = [
        f"training {trained:,} of {parameters:,} parameters for {ready['max_steps']} steps; "
        f"{slots} snapshots in memory take {decimal(needed_bytes)} ({decimal(state_bytes)} each)"
    ]
    if available_bytes is not None and needed_bytes > available_bytes:
        lines.append(
            f"warning: only {decimal(available_bytes)} of memory are available; "
            "checkpoint.slots = 2 needs less, and so does lora.enabled = true"
        )
    return lines


def available_memory_bytes(meminfo: str) -> int | None:
    """MemAvailable of the text of /proc/meminfo (proc(5)), None where it is not told."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


def kl_is_news(row: Mapping[str, Any], limit: float | None, told: float | None) -> bool:
    """Whether a row's KL is to be warned of: above the limit, and twice what was last told."""
    kl = row.get("kl")
    return limit is not None and isinstance(kl, float) and kl > max(limit, 2 * (told or 0.0))


def kl_line(row: Mapping[str, Any]) -> str:
    """The warning."""
    return (
        f"warning: at step {row.get('step')} the model is {row['kl']:.2f} nats per token away from where it began "
        "(KL, train.kl_warning); a higher train.beta or a lower train.learning_rate holds it nearer"
    )


def end_lines(error: BatonError, claimed: Claimed | None, *, claiming: bool = False) -> list[str]:
    """Why it ended, and what is safe. `claiming`: the bucket was asked for the run and did not answer any more."""
    if not isinstance(error, Preempted):
        return [f"error: {error}"]
    if claimed is None and claiming:
        return [f"{error.what} The run may have been claimed, nothing of it is lost; the same command goes on."]
    if claimed is None:
        return [f"{error.what} Nothing was changed; the same command tries again."]
    checkpoint = claimed.owner.head.checkpoint
    safe = "Nothing had been trained yet" if checkpoint is None else f"Everything is safe up to step {checkpoint.step}"
    return [f"{error.what} {safe}; the same command goes on from there."]
