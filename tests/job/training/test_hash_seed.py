"""What a trainer publishes and leaves behind does not depend on PYTHONHASHSEED, which differs in every process."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
from tests.job.training.test_hash_seed import print_hashes
print_hashes(Path(sys.argv[1]))
"""


def print_hashes(folder: Path) -> None:
    """One short run in this process; a hash of everything that it wrote."""
    from tests.job.training.test_process import TASK, attempt, files, settings_for

    sums = folder / "sums.jsonl"
    rows = [{"question": f"{i}+{i}=", "answer": f"#### {i + i}"} for i in range(8)]
    sums.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "task.py").write_text(TASK)
    agent = attempt(settings_for(sums, "train.num_iterations=2"), folder)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files(folder / "result").items()}
    for i, message in enumerate(agent.of("publish")):
        fields = message.fields
        del fields["meta"]["seconds"]
        plain = json.dumps([fields.get("index"), fields["meta"]["scheduler"], fields["meta"]["state"]])
        hashes[f"extra {i}"] = hashlib.sha256(message.blob).hexdigest()
        hashes[f"plain {i}"] = hashlib.sha256(plain.encode()).hexdigest()
    print(json.dumps(hashes))


@pytest.mark.long
def test_another_hash_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for seed in ("0", "1", "2"):
        folder = tmp_path / "same"  # paths are part of what is written
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder)],
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1", "BATON_MICRO": str(tmp_path / "micro")},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
        folder.rename(tmp_path / seed)
    assert len(found[0]) > 10
    assert found[0] == found[1] == found[2]
