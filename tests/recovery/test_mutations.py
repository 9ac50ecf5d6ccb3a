"""The tests would notice: with a place of the code that decides changed, by rule, one of them or a history fails.

By hand for all of them: python -m tests.recovery --mutate all
"""

import os
import random
import subprocess
import sys
from pathlib import Path

COUNT = 6
SEED = int(os.environ.get("MUTATION_SEED", random.randrange(1_000_000)))
ROOT = Path(__file__).resolve().parent.parent.parent


def test_changes_by_chance_are_noticed() -> None:
    """A few, drawn by a seed that a failure shows. One may be missed: some changes make no difference."""
    command = [sys.executable, "-m", "tests.recovery", "--mutate", str(COUNT), "--first", str(SEED)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    missed = [line for line in ran.stdout.splitlines() if line.startswith("NOT NOTICED")]
    assert "mutations noticed" in ran.stdout, ran.stderr
    assert len(missed) <= 1, f"MUTATION_SEED={SEED}\n{ran.stdout}"
