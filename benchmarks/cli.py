"""The command line answers at once: `baton --help` in half a second, and `baton status` without torch.

python -m benchmarks.cli [--json FILE]       about 15 seconds
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.table import Table

from benchmarks.measure import Claim, hold_to_cores, options, report, warn_if_busy
from job.run.claims import claim_process
from job.run.head import Owner
from job.storage import open_bucket

HELP_GOAL_S = 0.5
HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy")
BATON = Path(sys.executable).with_name("baton")


def seconds_of(command: Sequence[str], times: int) -> list[float]:
    """How long the command takes, each time in a new process."""
    seconds = []
    for _ in range(times):
        began_s = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.monotonic() - began_s)
    return seconds


def heavy_imports(command: Sequence[str]) -> tuple[set[str], int]:
    """The training libraries that the Python program imports, and how many modules it imports in all."""
    done = subprocess.run([sys.executable, "-X", "importtime", *command], check=True, capture_output=True, text=True)
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    return {name for name in imported if name.split(".")[0] in HEAVY}, len(imported)


def main(argv: Sequence[str]) -> None:
    """Measures and reports."""
    given = options(__doc__ or "").parse_args(argv)
    hold_to_cores()
    times = 2 if given.quick else 10
    if not given.quick:
        warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        run = (Path(folder) / "run").as_uri()
        bucket = open_bucket(run)
        Owner.take_over(bucket, claim_process(bucket, "here", 1)[0].number)
        commands = {
            "baton --help": ["--help"],
            "baton status RUN": ["status", run],
            "baton status RUN --json": ["status", run, "--json"],
        }
        seconds = {name: seconds_of([str(BATON), *arguments], times) for name, arguments in commands.items()}
        torch_s = seconds_of([sys.executable, "-c", "import torch"], 1 if given.quick else 3)
        heavy, modules = heavy_imports([str(BATON), "status", run])
    assert modules > 100, "the list of imports could not be read"
    table = Table("command", "seconds: median", "fastest", "slowest", title=f"{times} times each, in new processes")
    for name, s in [*seconds.items(), ("for comparison: import torch", torch_s)]:
        table.add_row(name, f"{median(s):.2f}", f"{min(s):.2f}", f"{max(s):.2f}")
    help_s = median(seconds["baton --help"])
    claims = [
        Claim(f"baton --help, median of {times}", help_s, "s", f"< {HELP_GOAL_S}", help_s < HELP_GOAL_S),
        Claim("training libraries that baton status imports", len(heavy), "modules", "0", not heavy),
    ]
    report([table], claims, given)


if __name__ == "__main__":
    main(sys.argv[1:])
