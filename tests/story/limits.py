"""Takes something away from a trainer before it trains: each function is a patch for an attempt."""

import os
import resource
import signal
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


def killed_in_step_two() -> None:
    """Whoever trains step 2 is killed there, as by the kernel when memory has run out."""
    from job.training.exact import ExactTrainer

    step = ExactTrainer.training_step

    def patched(self: ExactTrainer, *args: Any) -> Any:
        if self.state.global_step == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args)

    ExactTrainer.training_step = patched  # type: ignore[method-assign]
