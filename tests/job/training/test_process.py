"""A trainer that obeys its agent: it checks before it builds, publishes every step, goes on from what it is given,
leaves a result that loads by itself, and says in one line why it cannot go on.
"""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from job.arena import Channel, ChannelClosed, Message, Slot
from job.errors import ExitCode
from job.run.model_source import resolve_model
from job.settings import Settings, load_settings, to_plain
from job.training import exact, process
from tests.job.training.exact_runs import forget_process_state, micro_model


class Agent(threading.Thread):
    """The agent's side of the channel: keeps what is published and hangs up after `until_publish` boundaries."""

    def __init__(self, order: dict[str, Any], start: dict[str, Any] | None, until_publish: int | None) -> None:
        super().__init__(daemon=True)
        ours, self.theirs = Channel.pair()
        self.channel, self.order, self.given = ours, order, start
        self.slots = [Slot.create(f"agent{i}") for i in range(3)]
        self.until_publish = until_publish
        self.messages: list[Message] = []
        self.rows: list[dict[str, Any]] = []

    def run(self) -> None:
        self.channel.send("check", **self.order)
        filled = -1
        try:
            while True:
                message = self.channel.receive()
                self.messages.append(message)
                if message.op == "ready":
                    self._start()
                elif message.op == "slot":
                    filled = (filled + 1) % 3
                    self.channel.send("slot", id=filled)
                elif message.op in ("publish", "finished"):
                    self.rows += message.fields["rows"]
                if len(self.of("publish")) == self.until_publish:
                    self.channel.close()
                    return
        except ChannelClosed:
            return

    def _start(self) -> None:
        if self.given is None:
            self.channel.send("start")
            return
        memory = bytes(self.given["memory"])
        self.slots[2].view(len(memory))[:] = memory
        fields = {k: v for k, v in self.given.items() if k not in ("memory", "blob")}
        self.channel.send("start", self.given["blob"], slot=2, **fields)

    def of(self, op: str) -> list[Message]:
        return [message for message in self.messages if message.op == op]

    def snapshot(self) -> dict[str, Any]:
        """The newest boundary and what was scored after it, as `start` sends them."""
        newest = max(i for i, m in enumerate(self.messages) if m.op == "publish")
        publish = self.messages[newest]
        later = [m for m in self.messages[newest:] if m.op == "scored"]
        index = next(m.fields["index"] for m in reversed(self.messages[: newest + 1]) if "index" in m.fields)
        size = max(offset + size for _, _, offset, size in index.values())
        return {
            "memory": self.slots[publish.fields["slot"]].view(size),
            "blob": publish.blob + (later[-1].blob if later else b""),
            "extra_bytes": len(publish.blob),
            "scored": later[-1].fields["scored"] if later else [],
            "index": index,
            "meta": publish.fields["meta"],
        }


TASK = """
import json

class Spread:
    '''A reward that differs between the completions of a random model, so that every step changes the weights.'''

    weights = {"spread": 1.0}

    def read(self, path):
        return [json.loads(line) for line in path.read_text().splitlines()]

    def prompt(self, row):
        return [{"role": "user", "content": row["question"]}]

    def score(self, completions, rows):
        return {"spread": [sum(text.encode()) % 17 / 16 for text in completions]}
"""


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    file = tmp_path / "sums.jsonl"
    rows = [{"question": f"{i}+{i}=", "answer": f"#### {i + i}"} for i in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.py").write_text(TASK)
    return file


@pytest.fixture(autouse=True)
def _this_process() -> Iterator[None]:
    forget_process_state()
    yield
    torch.set_num_threads(1)


def settings_for(sums: Path, *overrides: str) -> Settings:
    given = {
        "task": f"{sums.parent / 'task.py'}:Spread",
        "data.train": str(sums),
        "data.eval": str(sums),
        "model.name": str(micro_model()),
        "train.max_steps": 3,
        "train.cpu_threads": 1,
        "train.learning_rate": 0.001,
        "train.batch_size_per_device": 4,
        "train.num_generations": 4,
        "train.max_completion_tokens": 4,
    }
    return load_settings(None, [f"{k}={v}" for k, v in given.items()] + list(overrides), {}, None).settings


def attempt(
    settings: Settings, folder: Path, start: dict[str, Any] | None = None, until_publish: int | None = None
) -> Agent:
    """A trainer's whole life, in this process."""
    forget_process_state()
    order = {
        "settings": to_plain(settings),
        "files": {
            "data.train": settings.data.train,
            "data.eval": settings.data.eval,
            "task": settings.task.rpartition(":")[0],
        },
        "model": resolve_model(settings.model.name).to_plain(),
        "result_dir": str(folder / "result"),
    }
    agent = Agent(order, start, until_publish)
    agent.start()
    process.run_trainer(agent.theirs, agent.slots, folder)
    agent.theirs.close()
    agent.join()
    return agent


def failure(agent: Agent) -> dict[str, Any]:
    (message,) = agent.of("failed")
    return message.fields


def test_it_says_what_it_does_in_order(sums: Path, tmp_path: Path) -> None:
    agent = attempt(settings_for(sums, "train.eval_every_steps=2"), tmp_path)
    told = [m.fields.get("name", m.op) for m in agent.messages if m.op not in ("slot", "publish", "scored")]
    assert told[:5] == ["check", "checked", "model", "ready", "train"]
    assert told[-2:] == ["result", "finished"]
    assert "evaluation" in told
    assert [m.fields["meta"]["global_step"] for m in agent.of("publish")] == [0, 1, 2, 3]
    assert agent.of("ready")[0].fields["max_steps"] == 3
    assert agent.of("finished")[0].fields["step"] == 3


def test_every_log_row_comes_once_and_the_last_has_the_mean_loss(sums: Path, tmp_path: Path) -> None:
    agent = attempt(settings_for(sums), tmp_path)
    assert [row["step"] for row in agent.rows if "samples" in row] == [1, 2, 3]
    assert [row["step"] for row in agent.rows if "samples" not in row] == [1, 2, 3, 3]
    assert "train_loss" in agent.rows[-1]


@pytest.mark.parametrize("boundaries", [1, 3, 4])
def test_another_trainer_goes_on_where_one_was_left_and_writes_the_same_bytes(
    sums: Path, tmp_path: Path, boundaries: int
) -> None:
    settings = settings_for(sums, "lora.dropout=0.1")
    attempt(settings, tmp_path / "whole")
    left = attempt(settings, tmp_path / "left", until_publish=boundaries)
    assert left.of("finished") == []
    rest = attempt(settings, tmp_path / "left", start=left.snapshot())
    assert "restore" in [m.fields.get("name") for m in rest.messages]
    assert files(tmp_path / "left/result") == files(tmp_path / "whole/result")


def files(folder: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    assert found
    return found


def test_the_adapter_loads_by_itself_and_answers_as_the_trained_model(sums: Path, tmp_path: Path) -> None:
    attempt(settings_for(sums), tmp_path)
    folder = tmp_path / "result/adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(micro_model().resolve())
    assert config["target_modules"] == sorted(config["target_modules"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "1+1="}], return_tensors="pt")
    ids = prompt["input_ids"] if not torch.is_tensor(prompt) else prompt
    trained = AutoPeftModelForCausalLM.from_pretrained(folder)(ids).logits
    base = AutoModelForCausalLM.from_pretrained(micro_model())(ids).logits
    assert not torch.equal(trained, base)
    assert (folder / "generation_config.json").is_file()
    assert {p.name for p in (tmp_path / "result").iterdir()} == {"adapter"}


def test_full_fine_tuning_leaves_a_model_that_loads_by_itself(sums: Path, tmp_path: Path) -> None:
    agent = attempt(settings_for(sums, "lora.enabled=false", "train.beta=0.1"), tmp_path)
    folder = tmp_path / "result/model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    saved = load_file(folder / "model.safetensors")
    assert sum(p.numel() for p in model.parameters()) == agent.of("ready")[0].fields["trained_parameters"]
    assert any(not torch.equal(saved[n], p) for n, p in base_parameters() if n in saved)
    assert AutoTokenizer.from_pretrained(folder).chat_template


def base_parameters() -> list[tuple[str, torch.Tensor]]:
    return list(AutoModelForCausalLM.from_pretrained(micro_model()).named_parameters())


def test_the_model_of_the_run_is_named_by_its_hash(sums: Path, tmp_path: Path) -> None:
    (checked,) = attempt(settings_for(sums), tmp_path).of("checked")
    source = resolve_model(str(micro_model()))
    assert checked.fields["model"] == {"name": source.name, "revision": None, "sha256": source.sha256}


def test_what_is_refused_is_refused_before_the_model_is_built(sums: Path, tmp_path: Path) -> None:
    agent = attempt(settings_for(sums, "train.max_prompt_tokens=1"), tmp_path)
    assert failure(agent)["exit"] == ExitCode.USAGE
    assert "train.max_prompt_tokens" in failure(agent)["what"]
    assert agent.of("ready") == agent.of("checked") == []


def test_held_out_prompts_that_are_all_too_long_are_refused(sums: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"question": "1+" * 40 + "1=", "answer": "#### 41"}) + "\n")
    settings = settings_for(sums, f"data.eval={long}", "train.eval_every_steps=1", "train.max_prompt_tokens=40")
    assert "long.jsonl" in failure(attempt(settings, tmp_path))["what"]


@pytest.mark.parametrize("rate", ["nan", "inf"])
def test_weights_that_are_not_finite_are_never_published(
    sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: str
) -> None:
    def spoil(self: exact.ExactTrainer, *args: Any) -> torch.Tensor:
        if self.state.global_step == 1:
            next(p for p in self.model.parameters() if p.requires_grad).data.flatten()[0] = float(rate)
            return torch.tensor(0.0)
        return super(exact.ExactTrainer, self).training_step(*args)

    monkeypatch.setattr(exact.ExactTrainer, "training_step", spoil, raising=False)
    agent = attempt(settings_for(sums), tmp_path)
    assert failure(agent)["exit"] == ExitCode.NEEDS_PERSON
    assert "after step 2" in failure(agent)["what"]
    assert "train.learning_rate" in failure(agent)["fix"]
    assert [m.fields["meta"]["global_step"] for m in agent.of("publish")] == [0, 1]


def test_a_loss_that_is_not_finite_is_never_published(
    sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(self: exact.ExactTrainer, *args: Any) -> torch.Tensor:
        return super(exact.ExactTrainer, self).training_step(*args) * float("nan")

    monkeypatch.setattr(exact.ExactTrainer, "training_step", spoil, raising=False)
    agent = attempt(settings_for(sums, "train.log_every_steps=2"), tmp_path)
    assert failure(agent)["what"] == "The loss is nan after step 1."
    assert len(agent.of("publish")) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."),
    ],
)
def test_out_of_memory_names_the_settings_to_lower(
    sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(self: exact.ExactTrainer, *args: Any) -> torch.Tensor:
        raise error

    monkeypatch.setattr(exact.ExactTrainer, "training_step", fail, raising=False)
    said = failure(attempt(settings_for(sums), tmp_path))
    assert said["exit"] == ExitCode.NEEDS_PERSON
    assert said["what"] == "The machine is out of memory."
    for setting in ("batch_size_per_device = 4", "num_generations", "max_completion_tokens", "gradient_check"):
        assert f"train.{setting}" in said["fix"]


def test_a_bug_comes_with_its_traceback_and_exit_1(sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: exact.ExactTrainer, *args: Any) -> torch.Tensor:
        raise KeyError("something")

    monkeypatch.setattr(exact.ExactTrainer, "training_step", fail, raising=False)
    said = failure(attempt(settings_for(sums), tmp_path))
    assert said["exit"] == ExitCode.BUG
    assert "Traceback" in said["what"]
    assert "KeyError: 'something'" in said["what"]


def test_a_checkpoint_of_another_model_is_refused(sums: Path, tmp_path: Path) -> None:
    left = attempt(settings_for(sums), tmp_path, until_publish=2)
    agent = attempt(settings_for(sums, "lora.rank=2"), tmp_path, start=left.snapshot())
    assert failure(agent)["exit"] == ExitCode.USAGE
    assert "lora_A" in failure(agent)["what"]
