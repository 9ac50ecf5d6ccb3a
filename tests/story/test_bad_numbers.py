"""Proves that a run which needs too much memory, or whose numbers stop being finite, ends with exit 3 and
says what to lower. What is durable then is finite, and the run goes on from there.
"""

import pytest
import torch
from attempts import Run
from refusals import fails
from safetensors.torch import load_file

LOWER_RATE = (
    'Lower train.learning_rate, train.beta or lora.alpha, or set model.dtype = "float32"; '
    "the run is safe up to the step before."
)
LESS_MEMORY = "train.gradient_checkpointing = true needs less. Or use a larger machine."
CASES = {
    "weights": (
        ["lora.alpha=1e18", "train.learning_rate=1.0"],
        "The norm of the weights is nan after step 2.",
        1,
    ),
    "gradients": (["lora.alpha=1e38"], "The norm of the gradients is inf after step 1.", 0),
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_that_are_not_finite_end_the_run_and_are_never_published(run: Run, case: str) -> None:
    wild, what, durable_step = CASES[case]
    run.settings += wild
    fails(run, 3, what, LOWER_RATE)
    assert run.durable_step() == durable_step
    assert not (run.bucket / "result").exists()
    assert_finite(run)
    run.settings.clear()
    accepted = [f"--allow-changed={setting.partition('=')[0]}" for setting in wild]
    mended = run.server.attempt([*run.argv(), *accepted], cwd=run.workplace, folder=run.folder)
    assert mended.wait() == 0, mended.err
    assert f"resumed {run.uri} from step {durable_step}" in mended.err


FULL = ["lora.enabled=false", "train.beta=1e38", "train.learning_rate=1.0"]


def test_a_loss_that_is_not_finite_ends_the_run_and_so_do_weights_from_which_none_can_follow(run: Run) -> None:
    run.settings += FULL
    fails(run, 3, "The loss is nan after step 2.", LOWER_RATE)
    assert run.durable_step() == 1
    run.settings[:] = ["lora.enabled=false", "train.beta=0.01"]
    accepted = ["--allow-changed=train.beta", "--allow-changed=train.learning_rate"]
    again = run.server.attempt([*run.argv(), *accepted], cwd=run.workplace, folder=run.folder)
    assert again.wait() == 3, again.err
    assert again.err.splitlines()[-2:] == [
        "error: The model's output is not finite: no completion can be drawn.",
        "  The weights of the last step are finite, but too large to go on from: start another run with a lower "
        'train.learning_rate, train.beta or lora.alpha, or with model.dtype = "float32".',
    ]
    assert_finite(run)


def assert_finite(run: Run) -> None:
    """Every checkpoint in the run, and there is one."""
    states = list(run.bucket.glob("checkpoints/*/state.safetensors"))
    assert states
    for path in states:
        assert all(torch.isfinite(tensor).all() for tensor in load_file(path).values()), path


def test_out_of_memory_says_what_to_lower(run: Run) -> None:
    run.settings += ["train.batch_size_per_device=8192", "train.num_generations=8192", "train.steps_per_generation=1"]
    fails(
        run,
        3,
        "The machine is out of memory.",
        "Lower one of train.batch_size_per_device = 8192, train.num_generations = 8192, "
        f"train.max_completion_tokens = 8; {LESS_MEMORY}",
        patches=["tests.story.limits:little_memory"],
    )
    assert run.durable_step() == 0


def test_a_trainer_that_the_kernel_kills_twice_says_what_to_lower(run: Run) -> None:
    fails(
        run,
        3,
        "the trainer was killed twice after step 1 (signal SIGKILL): most likely the machine is out of memory; "
        "`dmesg` tells.",
        "Lower one of train.batch_size_per_device = 8, train.num_generations = 4, train.max_completion_tokens = 8; "
        f"{LESS_MEMORY}",
        patches=["tests.story.limits:killed_in_step_two"],
    )
    assert run.durable_step() == 1
    assert run.start().wait() == 0
