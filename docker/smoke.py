"""The end of every build: what was put together works. `smoke.py LAYER...` names the locks that were installed.

Every module that is shipped can be imported, every package has the version that its lock says and none is there
beside them, no file runs code at the start of Python that is not expected, and where there is torch a small model
learns one step. Takes some seconds; the first thing that is wrong ends the build.
"""

import importlib
import pkgutil
import re
import sys
import sysconfig
import tempfile
from importlib.metadata import distributions
from os import environ
from pathlib import Path

LOCKS = Path("/opt/locks")
PACKAGES = ("job", "infra")
NEED_LOCAL_CLOUD = {"infra.cli.demo", "infra.cli.local", "infra.demo"}  # which is not shipped
NEED_TORCH = ("job.training",)
EXPECTED_PTH = {
    "distutils-precedence.pth",  # setuptools: distutils, which Python 3.12 no longer has
}


def main(layers: list[str]) -> int:
    """Says what is wrong, one line each."""
    wrong = [*wrong_versions(layers), *unexpected_pth()]
    if not wrong:
        modules = import_all(with_torch="train" in layers)
        print(f"smoke: {len(modules)} modules imported", file=sys.stderr)
    if not wrong and "train" in layers:
        wrong = wrong_step()
    print(*(f"smoke: {line}" for line in wrong or ["all is well"]), sep="\n", file=sys.stderr)
    return 1 if wrong else 0


def wrong_versions(layers: list[str]) -> list[str]:
    """Packages that are missing, of another version than locked, or not locked at all."""
    locked = dict(
        pin
        for layer in layers
        for pin in re.findall(r"^([a-z0-9-]+)==(\S+)", (LOCKS / f"requirements-{layer}.txt").read_text(), re.MULTILINE)
    )
    have = {re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(): one.version for one in distributions()}
    return [
        f"{name} is {have.get(name, 'not installed')}, locked is {locked.get(name, 'nothing')}"
        for name in sorted(locked.keys() | have.keys())
        if have.get(name) != locked.get(name)
    ]


def unexpected_pth() -> list[str]:
    """Files that run code whenever Python starts."""
    found = Path(sysconfig.get_path("purelib")).rglob("*.pth")
    return [f"{path} would be run at every start of Python" for path in found if path.name not in EXPECTED_PTH]


def import_all(*, with_torch: bool) -> list[str]:
    """Imports every module that can work in this image; raises what one of them raises."""
    names = [
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        if not module.name.endswith("__main__")
        and module.name not in NEED_LOCAL_CLOUD
        and (with_torch or not module.name.startswith(NEED_TORCH))
    ]
    for name in names:
        importlib.import_module(name)
    return names


def wrong_step() -> list[str]:
    """One step of LoRA on a CPU: the loss is a number, and the adapter moves."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    small = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    model = get_peft_model(LlamaForCausalLM(small), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = [one for one in model.parameters() if one.requires_grad]
    before = [one.detach().clone() for one in trained]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    tokens = torch.arange(32).reshape(2, 16)
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    if not torch.isfinite(loss):
        return [f"the loss of the first step is {loss.item()}"]
    if all(torch.equal(one, other) for one, other in zip(before, trained, strict=True)):
        return ["a step of the optimizer changed nothing"]
    return []


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:  # what libraries leave behind at their import goes nowhere
        environ.update(HOME=folder, XDG_CACHE_HOME=folder, TMPDIR=folder, HF_HUB_OFFLINE="1")
        sys.exit(main(sys.argv[1:]))
