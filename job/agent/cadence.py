"""How often a checkpoint may be written: pure arithmetic on what the last one cost."""

BUSY_SHARE = 0.0075
"""Of the loop's time, what uploads may cost where no core is free. With the copies into the slots it stays under 1 %
(docs/design.md, Exact resume; docs/benchmarks.md)."""


STORAGE_SHARE = 0.05
"""Of the machine's price, what checkpoints may cost in operations and traffic (docs/design.md, Exact resume)."""


def pause_s(upload_cpu_s: float, *, cores: int, trainer_threads: int) -> float:
    """Seconds to wait after an upload that took `upload_cpu_s` of CPU time.

    With a core free the upload disturbs nobody: no wait. Otherwise it takes its time from the trainer, and the wait
    keeps that under BUSY_SHARE of the whole.
    """
    if cores > trainer_threads:
        return 0.0
    return upload_cpu_s / BUSY_SHARE


def paid_pause_s(upload_usd: float, *, machine_usd_per_hour: float) -> float:
    """Seconds to wait after an upload that cost `upload_usd`, so that storage stays under STORAGE_SHARE."""
    return upload_usd / (STORAGE_SHARE * machine_usd_per_hour) * 3600


def last_safe_moment_s(deadline_s: float, *, flush_s: float, margin_s: float) -> float:
    """The moment until which training may go on before a deadline.

    Two flushes must fit: an upload may have begun just before, and the newest snapshot follows it.
    """
    return deadline_s - 2 * flush_s - margin_s
