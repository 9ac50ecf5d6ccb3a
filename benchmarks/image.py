"""The image starts, stops and is built again quickly, and a commit changes little of it.

python -m benchmarks.image [--json FILE] [--target train] [--rounds 3]       about 6 minutes; root, podman
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.table import Table

from benchmarks.measure import ROOT, Claim, hold_to_cores, options, progress, report, warn_if_busy
from tools.image import run
from tools.image.manifest import Layer, layers, short

STOP_GOAL_S = 5.0
REBUILD_GOAL_S = 15.0
LAYER_GOAL_BYTES = 2e6
SLIM_GOAL_BYTES = 250e6
STOP_S = 25  # as in infra/vm/baton.service
WAIT_S = 300.0
PREEMPTED = 75
REGISTRY = """version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "{address}"}}
log: {{accesslog: {{disabled: true}}, level: error}}
"""


@dataclass(frozen=True)
class Turn:
    """One container: from `run` to a step that is durable, then from `stop` to its end."""

    first_step_s: float
    stop_s: float
    exit_code: int


def tool(*words: str, root: Path = ROOT) -> str:
    """`python -m tools.image ...`; its stdout."""
    env = os.environ | {"PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "tools.image", *words]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return done.stdout.strip()


def one_turn(engines: run.Engines, image: str, cache: str, folder: Path) -> Turn:
    """Trains the demo with a run of its own in `folder`."""
    name = f"benchmark-{uuid.uuid4().hex[:8]}"
    home = folder / name
    home.mkdir()
    os.chown(home, 1000, 1000)
    began_s = time.monotonic()
    _podman(
        engines,
        *("run", "--detach", f"--name={name}", "--init", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL"),
        *("--network=host", "--env=BATON_NEEDS_DRIVER=", f"--volume={cache}:/cache", f"--volume={home}:/runs"),
        *(image, "recipes/demo.toml", "--run", "file:///runs/one", "--set", "train.max_steps=2000"),
    )
    try:
        while _durable_step(home / "one" / "head.json") < 1:
            if time.monotonic() - began_s > WAIT_S:
                raise SystemExit(f"no step in {WAIT_S:.0f} s: {_podman(engines, 'logs', name)}")
            time.sleep(0.01)
        first_step_s = time.monotonic() - began_s
        began_s = time.monotonic()
        _podman(engines, "stop", f"--time={STOP_S}", name)
        stop_s = time.monotonic() - began_s
        code = int(_podman(engines, "inspect", "--format={{.State.ExitCode}}", name))
    finally:
        _podman(engines, "rm", "--force", name)
    return Turn(first_step_s, stop_s, code)


def rebuild(target: str, folder: Path) -> tuple[float, str]:
    """Seconds that a build takes after one line of the source was changed, and the name of what it made."""
    clone = folder / f"clone-{uuid.uuid4().hex[:8]}"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    source = clone / "job" / "errors.py"
    source.write_text(f"{source.read_text()}\n# {uuid.uuid4().hex}\n")
    began_s = time.monotonic()
    name = tool("build", "--engine=podman", target, root=clone)
    return time.monotonic() - began_s, name


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[str]:
    """HOST:PORT of an empty registry on loopback."""
    address = "127.0.0.1:5057"
    (folder / "config.yml").write_text(REGISTRY.format(folder=folder, address=address))
    program = run.program("docker-registry", why="layers are weighed as they travel")
    with subprocess.Popen(
        [program, "serve", folder / "config.yml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            yield address
        finally:
            server.terminate()


def main(argv: Sequence[str]) -> None:
    """Measures and reports."""
    parser = options(__doc__ or "")
    parser.add_argument("--target", default="train-cpu", choices=("train-cpu", "train"), help="also weighed: slim")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(argv)
    hold_to_cores()
    rounds = 1 if given.quick else given.rounds
    if not given.quick:
        warn_if_busy()
    engines = run.find("podman")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as path, contextlib.ExitStack() as stack:
        folder = Path(path)
        folder.chmod(0o755)
        progress(f"building slim and {given.target}, from the cache where it can be")
        images = dict(zip(("slim", given.target), tool("build", "slim", given.target).split(), strict=True))
        address = stack.enter_context(registry(folder))
        pushed = {target: _pushed(address, target) for target in images}
        cache = _podman(engines, "volume", "create").strip()
        stack.callback(_podman, engines, "volume", "rm", "--force", cache)
        progress("one container that makes the tiny model, then those that count")
        one_turn(engines, images[given.target], cache, folder)
        turns = [one_turn(engines, images[given.target], cache, folder) for _ in range(rounds)]
        rebuilds = []
        for _ in range(rounds):
            seconds, name = rebuild(given.target, folder)
            rebuilds.append(seconds)
            stack.callback(_podman, engines, "image", "rm", "--force", name)
        _podman(engines, "tag", name, f"localhost/baton/changed:{given.target}")
        _podman(engines, "push", "--quiet", "--tls-verify=false", "--format=oci", "--compression-format=zstd",
                f"--digestfile={folder / 'digest'}", name, f"docker://{address}/changed:1")  # fmt: skip
        changed = layers(f"{address}/changed@{(folder / 'digest').read_text().strip()}")
        shutil.rmtree(folder, ignore_errors=True)
    known = {layer.digest for layer in pushed[given.target]}
    new_bytes = sum(layer.size_bytes for layer in changed if layer.digest not in known)
    report(
        [_sizes(target, of_target) for target, of_target in pushed.items()],
        claims_of(given.target, turns, rebuilds, new_bytes, sum(one.size_bytes for one in pushed["slim"])),
        given,
    )


def claims_of(
    target: str, turns: Sequence[Turn], rebuilds: Sequence[float], new_bytes: int, slim_bytes: int
) -> list[Claim]:
    """What the figures say; pure."""
    stop_s, rebuild_s = max(turn.stop_s for turn in turns), median(rebuilds)
    all_75 = all(turn.exit_code == PREEMPTED for turn in turns)
    times = f"{len(turns)} times"
    return [
        Claim(f"{target}: `run` to the first durable step, median of {times}",
              median(turn.first_step_s for turn in turns), "s", "none", None),
        Claim(f"{target}: `stop` to exit 75, slowest of {times}", stop_s, "s", f"< {STOP_GOAL_S:g}",
              all_75 and stop_s < STOP_GOAL_S),
        Claim(f"{target}: build after a change of the source, median of {len(rebuilds)} times", rebuild_s, "s",
              f"< {REBUILD_GOAL_S:g}", rebuild_s < REBUILD_GOAL_S),
        Claim(f"{target}: what a change of the source makes travel", new_bytes / 1e6, "MB",
              f"< {LAYER_GOAL_BYTES / 1e6:g}", new_bytes < LAYER_GOAL_BYTES),
        Claim("slim, as it travels", slim_bytes / 1e6, "MB", f"< {SLIM_GOAL_BYTES / 1e6:g}",
              slim_bytes < SLIM_GOAL_BYTES),
    ]  # fmt: skip


def _pushed(address: str, target: str) -> list[Layer]:
    return layers(tool("push", "--engine=podman", f"--registry={address}/benchmark", target))


def _sizes(target: str, of_target: Sequence[Layer]) -> Table:
    table = Table("layer", "MB", title=f"{target}: {sum(one.size_bytes for one in of_target) / 1e6:.1f} MB travel")
    for one in of_target:
        table.add_row(short(one.made_by), f"{one.size_bytes / 1e6:.2f}")
    return table


def _durable_step(head: Path) -> int:
    try:
        checkpoint = json.loads(head.read_bytes())["checkpoint"]
    except (FileNotFoundError, ValueError):
        return -1
    return -1 if checkpoint is None else int(checkpoint["step"])


def _podman(engines: run.Engines, *words: str) -> str:
    done = subprocess.run(["podman", *words], env=os.environ | engines.env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"podman {words[0]} failed: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
