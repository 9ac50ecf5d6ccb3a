"""The estimate grows with what costs more, refuses nothing that it does not know, and says sizes by a model's name."""

import pytest

from infra.expected import UNKNOWN_WORK_H
from infra.launch.estimate import estimate, gpu_gb, host_gb, parameters_of, work_of
from infra.launch.prepare import smallest_gpu
from infra.machines import machines
from job.settings import Settings

L4, H100 = machines().gpu["l4"], machines().gpu["h100"]


def settings(lora: bool = True, dtype: str = "bfloat16", **train: object) -> Settings:
    return Settings.model_validate(
        {"data": {"train": "x"}, "lora": {"enabled": lora}, "model": {"dtype": dtype}, "train": train}
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("tiny", 0.8e6),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1.5e9),
        ("meta-llama/Llama-3.1-8B", 8e9),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 135e6),
        ("google/gemma-3-4b-it", 4e9),
        ("somebody/nameless", None),
        ("7b-lab/nameless", None),
    ],
)
def test_a_models_size_is_in_its_name_or_not_known(name: str, parameters: float | None) -> None:
    assert parameters_of(name) == parameters


def test_full_fine_tuning_takes_more_memory_than_lora_on_gpu_and_host() -> None:
    assert gpu_gb(settings(lora=False), 1e9)[0] > 5 * gpu_gb(settings(), 1e9)[0]
    assert host_gb(settings(lora=False), 1e9, 2) > host_gb(settings(), 1e9, 3)


def test_what_it_takes_at_least_is_less_than_what_it_takes_about() -> None:
    for parameters in (0.8e6, 1.5e9, 70e9):
        least, about = gpu_gb(settings(), parameters)
        assert 0 < least < about


def test_weights_of_32_bits_take_twice_the_memory() -> None:
    assert gpu_gb(settings(dtype="float32"), 1e9)[0] == 2 * gpu_gb(settings(), 1e9)[0]


def test_larger_models_more_steps_and_slower_gpus_take_more_hours() -> None:
    base = estimate(settings(), L4, 1.5e9, 300)
    assert estimate(settings(), L4, 7e9, 300).hours > base.hours
    assert estimate(settings(), L4, 1.5e9, 600).hours == pytest.approx(2 * base.hours)
    assert estimate(settings(), H100, 1.5e9, 300).hours < base.hours
    assert base.hours == pytest.approx(300 * base.step_s / 3600)


def test_what_is_not_known_of_a_run_is_assumed_in_one_place() -> None:
    assert work_of(settings(), L4, None, 300).hours == work_of(settings(), L4, 1e9, None).hours == UNKNOWN_WORK_H
    known = work_of(settings(lora=False), L4, 1e9, 300, image="europe-west4-docker.pkg.dev/p/r/train@sha256:0")
    assert known.hours == estimate(settings(lora=False), L4, 1e9, 300).hours
    assert known.restore_gib == pytest.approx(12e9 / 2**30)
    assert known.registry_region == "europe-west4"
    assert work_of(settings(), L4, 1e9, 300, image="ghcr.io/o/train@sha256:0").registry_region is None


def test_the_smallest_gpu_that_fits_computes_what_the_recipe_wants() -> None:
    assert smallest_gpu(1, bf16=False) == "t4"
    assert smallest_gpu(1, bf16=True) == "l4"
    assert smallest_gpu(30, bf16=True) == "a100"
    assert smallest_gpu(90, bf16=True) == "rtx6000"
    assert smallest_gpu(100, bf16=True) is None
