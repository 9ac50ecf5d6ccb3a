"""Takes something away from a trainer before it trains: each function is a patch for an attempt."""

import os
import resource
from pathlib import Path
from typing import Any

SPARE_BYTES = 64 << 20


def little_memory() -> None:
    """From when the model is built the kernel gives the trainer 64 MiB more, then nothing."""
    import job.training.process

    build = job.training.process.build_trainer

    def patched(*args: Any) -> Any:
        trainer = build(*args)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        return trainer

    job.training.process.build_trainer = patched
