"""Proves the same of other recipes: full fine-tuning (two slots instead of three), a reference model, one that moves,
one pass per batch without evaluation. Each is killed at random and ends with the weights of its own untouched run.
"""

import os
import signal
from pathlib import Path

import pytest
from attempts import ForkServer, Run, random_moments, weights_sha256

RECIPES = {
    "full fine-tuning": ["lora.enabled=false"],
    "a reference model": ["train.beta=0.1"],
    "a reference model that moves": [
        "lora.enabled=false",
        "train.beta=0.1",
        "train.sync_ref_model=true",
        "train.ref_model_sync_steps=2",
    ],
    "one pass per batch, no evaluation": ["train.num_iterations=1", "train.eval_every_steps=none"],
}
CORE = ("full fine-tuning", "one pass per batch, no evaluation")


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=[] if name in CORE else [pytest.mark.long]) for name in RECIPES]
)
def test_killed_at_random_it_ends_with_the_weights_of_its_own_untouched_run(
    server: ForkServer, workplace: Path, tmp_path: Path, recipe: str
) -> None:
    moments = random_moments()
    settings = RECIPES[recipe]
    untouched = Run(server, workplace, tmp_path / "untouched", settings)
    untouched.folder.mkdir()
    expected = untouched.finish()
    run = Run(server, workplace, tmp_path / "killed", settings)
    run.folder.mkdir()
    for _ in range(3):
        target = run.durable_step() + moments.randrange(0, 3)
        attempt = run.start()
        run.wait_for_step(target, attempt)
        for _ in range(moments.randrange(300_000)):
            pass
        trainer = attempt.trainer_pid()
        number = moments.choice([signal.SIGTERM, signal.SIGKILL])
        if moments.random() < 0.3 and trainer is not None:
            os.kill(trainer, signal.SIGKILL)  # and the agent goes on
            assert attempt.wait() == 0, attempt.err
            break
        if attempt.lives():
            attempt.kill(number)
        if attempt.wait() == 0:
            break
        assert attempt.exit_code in (75, -signal.SIGKILL), attempt.err
    else:
        run.finish()
    assert weights_sha256(run) == expected
