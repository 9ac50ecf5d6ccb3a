"""Proves that a model folder that cannot be trained is refused in one clear error before the run exists: no tokenizer,
pickles, no chat template, damaged files, layers that are not there.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from attempts import Run
from refusals import own_workplace, refuse

AGAIN = "Copy or download its files again; model.name may also be another model."


def without_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def pickles_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def torn_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def torn_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def torn_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


CASES: list[tuple[Callable[[Path], None], str, str]] = [
    (
        without_tokenizer,
        "The model folder micro has no tokenizer.",
        "tokenizer.save_pretrained(FOLDER) puts one beside it.",
    ),
    (
        pickles_only,
        "The model folder micro has only pickled weights (pytorch_model.bin).",
        "Pickles can run code and are never loaded: save it with model.save_pretrained(FOLDER).",
    ),
    (
        without_chat_template,
        "The model micro has no chat template.",
        "Take the instruction-tuned version of it, or save a chat template with its tokenizer.",
    ),
    (
        without_config,
        "The model folder micro has no config.json.",
        "Name the folder that the weights are in.",
    ),
    (
        torn_config,
        "The model in FOLDER cannot be loaded: It looks like the config file at 'FOLDER/config.json' is not a valid "
        "JSON file.",
        AGAIN,
    ),
    (
        torn_tokenizer,
        "The tokenizer in FOLDER cannot be loaded: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)",
        "Copy or download its files again.",
    ),
    (
        torn_weights,
        "The model in FOLDER cannot be loaded: Error while deserializing header: incomplete metadata, file not fully "
        "covered",
        AGAIN,
    ),
]


@pytest.mark.parametrize(("damage", "what", "fix"), CASES, ids=[damage.__name__ for damage, _, _ in CASES])
def test_a_folder_that_cannot_be_trained_is_refused(
    run: Run, damage: Callable[[Path], None], what: str, fix: str
) -> None:
    run = own_workplace(run)
    folder = run.workplace / "micro"
    damage(folder)
    refuse(run, 2, what.replace("FOLDER", str(folder)), fix)
    assert not run.bucket.exists()


def test_a_folder_that_is_not_there_is_refused(run: Run) -> None:
    refuse(
        run,
        2,
        "model.name: there is no folder ./nowhere.",
        'It is "tiny", a folder with config.json and *.safetensors, or a Hugging Face name such as '
        "Qwen/Qwen2.5-1.5B-Instruct.",
        argv=[*run.argv(), "--set=model.name=./nowhere"],
    )


def test_layers_that_the_model_does_not_have_are_refused(run: Run) -> None:
    refuse(
        run,
        2,
        "lora.targets: the model micro takes no adapter there: Target modules {'no_proj'} not found in the base model. "
        "Please check the target modules and try again.",
        'Use "all-linear", or some of: down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj.',
        argv=[*run.argv(), '--set=lora.targets=["no_proj"]'],
    )
