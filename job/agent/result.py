"""The result of a finished run: files that others may rely on, written once head says `finishing`."""

import json
from pathlib import Path

from job.run.layout import RESULT
from job.run.segments import join_metrics, read_rows
from job.storage import Bucket


def publish_result(bucket: Bucket, folder: Path, last_step: int) -> list[str]:
    """Writes result/ from the trainer's files and the run's metric rows. Returns the names written.

    Safe to repeat: every attempt that gets here derives the same bytes from the checkpoint that head names.
    """
    names = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = f"{RESULT}/{path.relative_to(folder).as_posix()}"
        with path.open("rb") as file:
            bucket.write(name, iter(lambda: file.read(1 << 20), b""))
        names.append(name)
    rows = join_metrics(read_rows(bucket, "metrics"), last_step)
    name = f"{RESULT}/metrics.jsonl"
    bucket.write(name, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return [*names, name]
