"""The demo's task, as a user's own task file. In a trainer it also tells when each step was made: the truth about what
a preemption costs, which the run itself cannot know of a machine that lost its power."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from job.tasks.math_qa import MathQA

STEPS = "BENCHMARK_STEPS"
"""The file, in the environment: a line `ATTEMPT STEP SECONDS-SINCE-EPOCH` at the end of each step."""


class Sums(MathQA):
    """The same questions and rewards."""


def tell_steps(file: Path) -> None:
    """From now on every trainer that is made in this process tells of its steps, before they are copied anywhere."""
    from transformers import TrainerCallback
    from transformers.trainer import DEFAULT_CALLBACKS

    class Teller(TrainerCallback):
        """Appends a line."""

        def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
            """The optimizer has made its step."""
            with file.open("a") as out:
                out.write(f"{os.environ['BATON_ATTEMPT']} {state.global_step} {time.time()}\n")

    DEFAULT_CALLBACKS.append(Teller)


if STEPS in os.environ and "transformers" in sys.modules:  # not where the file is only checked
    tell_steps(Path(os.environ[STEPS]))
