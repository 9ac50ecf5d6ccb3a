"""A tiny Llama with its own tokenizer and chat template, made here: no download, and GRPO visibly learns.

It knows the sums of `sum_problems` as a base model knows its field: it wavers. It keeps to the asked form 60 %
of the time and gives the right sum half of the time, so that the reward has somewhere to go. The same spec,
torch and machine give the same bytes, whatever PYTHONHASHSEED or the caller's random state.
"""

import contextlib
import fcntl
import hashlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from job.errors import NeedsPerson

TINY_VERSION = "1"  # a new one whenever the code below makes other bytes from the same TinySpec
HASHES = "SHA256SUMS"
EOS, PAD, USER, BOT = "<eos>", "<pad>", "<user>", "<bot>"
TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")

# System text is left out: the model learned the form without it, and a prompt has 6 tokens instead of 260.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<user>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '<bot>' + message['content'] + '<eos>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<bot>' }}{% endif %}"
)


@dataclass(frozen=True)
class TinySpec:
    """Everything that decides the bytes. The default: 0.8M parameters, half a minute on 2 cores."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 352
    max_positions: int = 4096
    warmup_steps: int = 400
    """Steps of supervised training; 0 leaves the weights random."""
    noisy_share: float = 0.3
    """The last part of them that sees wavering answers."""
    form_share: float = 0.6
    """Of those, how many keep to the form."""
    right_share: float = 0.5
    """Of those, how many have the right sum."""
    batch: int = 64
    learning_rate: float = 2e-3
    seed: int = 0
    threads: int = 2
    """Part of the bits, like the seed."""


def sum_problems() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """All sums of two digits, shuffled: 84 to train on, 16 held out. The files in data/ hold the same."""
    problems = [(a, b) for a in range(10) for b in range(10)]
    random.Random(1234).shuffle(problems)
    return problems[:84], problems[84:]


def ensure_tiny(spec: TinySpec | None = None) -> Path:
    """The folder of the tiny model, made now if the cache has no whole one; several processes may call.

    Cached in $BATON_CACHE, else $XDG_CACHE_HOME/baton, else ~/.cache/baton. Raises NeedsPerson when that
    cannot be written.
    """
    spec = spec or TinySpec()
    folder = cache_root() / f"tiny-{TINY_VERSION}-{hashlib.sha256(repr(spec).encode()).hexdigest()[:8]}"
    if is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_suffix(".lock")):
            if not is_whole(folder):  # another process may have made it while this one waited
                _make_in_place(folder, spec)
    except OSError as error:
        raise NeedsPerson(
            f"The tiny model cannot be kept in {folder.parent}: {error.strerror or error}.",
            fix="Set BATON_CACHE to a folder that may be written and has 10 MB free.",
        ) from error
    return folder


def cache_root() -> Path:
    """Where things that can be made again are kept; need not exist."""
    if cache := os.environ.get("BATON_CACHE"):
        return Path(cache).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "baton"


def is_whole(folder: Path) -> bool:
    """True when every file has the hash that the folder's SHA256SUMS says."""
    try:
        listed = (folder / HASHES).read_text()
        return bool(listed) and listed == _hashes(folder)
    except OSError:
        return False


def make_tiny(folder: Path, spec: TinySpec) -> None:
    """Makes model and tokenizer in `folder`. Leaves global random state and thread count as they were."""
    tokenizer = make_tokenizer(spec)
    threads = torch.get_num_threads()
    torch.set_num_threads(spec.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            model = LlamaForCausalLM(_config(spec, tokenizer))
            _warm_up(model, tokenizer, spec)
    finally:
        torch.set_num_threads(threads)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / HASHES).write_text(_hashes(folder))


def make_tokenizer(spec: TinySpec) -> PreTrainedTokenizerFast:
    """Bytes and a handful of added tokens: any UTF-8 text passes through it and comes back unchanged.

    The tags are single tokens, which keeps a completion under 14 tokens, and not special, so that they stay
    visible in decoded text.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (PAD, EOS, USER, BOT)])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        model_max_length=spec.max_positions,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _config(spec: TinySpec, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.hidden,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads,
        intermediate_size=spec.intermediate,
        max_position_embeddings=spec.max_positions,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
    )


def _warm_up(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, spec: TinySpec) -> None:
    """Supervised training on the sums: first right answers, at the end wavering ones."""
    rng = random.Random(spec.seed)
    problems = sum_problems()[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.learning_rate, weight_decay=0.01)
    noisy_from = round(spec.warmup_steps * (1 - spec.noisy_share))
    for step in range(spec.warmup_steps):
        examples = [_example(rng.choice(problems), rng, spec, noisy=step >= noisy_from) for _ in range(spec.batch)]
        input_ids, labels, mask = _batch(examples, tokenizer)
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * min(1, (step + 1) / 20) * max(0.02, 1 - step / spec.warmup_steps)
        loss = model(input_ids=input_ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def _example(problem: tuple[int, int], rng: random.Random, spec: TinySpec, *, noisy: bool) -> tuple[str, str]:
    """One prompt and its answer."""
    a, b = problem
    prompt = f"{USER}{a}+{b}={BOT}"
    total = a + b if not noisy or rng.random() < spec.right_share else rng.randrange(19)
    thought = f"<reasoning>{a}+{b}={total}</reasoning>"
    if not noisy or rng.random() < spec.form_share:
        return prompt, f"{thought}<answer>{total}</answer>{EOS}"
    formless = (f"{total}", f"{thought}{total}", f"<answer>{total}</answer>", f"{thought}<answer>{total}")
    return prompt, rng.choice(formless) + EOS


def _batch(
    examples: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, labels (-100 on prompt and padding), mask: each (batch, longest), padded on the right."""
    prompts = tokenizer([prompt for prompt, _ in examples])["input_ids"]
    answers = tokenizer([answer for _, answer in examples])["input_ids"]
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.tensor([_padded(p + a, longest, tokenizer.pad_token_id) for p, a in zip(prompts, answers, strict=True)])
    labels = torch.tensor([_padded([-100] * len(p) + a, longest, -100) for p, a in zip(prompts, answers, strict=True)])
    mask = torch.tensor([_padded([1] * len(p + a), longest, 0) for p, a in zip(prompts, answers, strict=True)])
    return ids, labels, mask


def _padded(values: list[int], length: int, filler: int) -> list[int]:
    return values + [filler] * (length - len(values))


def _make_in_place(folder: Path, spec: TinySpec) -> None:
    print(f"Making the tiny model: once, about half a minute, kept in {folder}", file=sys.stderr, flush=True)
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        make_tiny(made, spec)
        if folder.exists():  # it is not whole, or we would not be here
            shutil.rmtree(folder)
        made.rename(folder)
    print(f"The tiny model is made ({time.monotonic() - started_s:.0f} s).", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One maker at a time; the kernel lets go when a maker dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another process is making the tiny model; waiting for it.", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _hashes(folder: Path) -> str:
    """What `sha256sum` would print for every file but the list itself."""
    files = sorted(path for path in folder.iterdir() if path.name != HASHES)
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
