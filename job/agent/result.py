"""The result of a finished run: files that others may rely on, written once head says `finishing`."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from job.checkpoint.manifest import ManifestFile, Parent, ResultManifest
from job.run.head import CheckpointRef
from job.run.layout import RESULT, RESULT_MANIFEST
from job.run.segments import join_metrics, read_rows
from job.storage import Bucket, Buffer
from job.views.report import render
from job.views.report_data import finished_report

BLOCK_BYTES = 1 << 20


def publish_result(bucket: Bucket, folder: Path, checkpoint: CheckpointRef, say: Callable[[str], None]) -> list[str]:
    """Writes result/ from the trainer's files and the run's rows, its MANIFEST last. Returns the names written.

    Safe to repeat: every attempt that gets here derives the same model and metrics from the checkpoint that head
    names. `say` takes a line for people.
    """
    files: dict[str, ManifestFile] = {}

    def write(name: str, data: Iterable[Buffer]) -> None:
        digest = hashlib.sha256()
        info = bucket.write(f"{RESULT}/{name}", _hashed(data, digest))
        assert info.crc32c is not None
        files[name] = ManifestFile(size_bytes=info.size_bytes, crc32c=info.crc32c, sha256=digest.hexdigest())

    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        write(path.relative_to(folder).as_posix(), _blocks(path))
    rows = join_metrics(read_rows(bucket, "metrics"), checkpoint.step)
    write("metrics.jsonl", ["".join(json.dumps(row) + "\n" for row in rows).encode()])
    try:
        page = render(finished_report(bucket, rows, files))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # a bug there; the model is what counts
        say(f"warning: no report was made ({type(error).__name__}: {error}); try: baton report {bucket.uri}")
    else:
        write("report.html", [page.encode()])
    parent = Parent(folder=checkpoint.folder, manifest_sha256=checkpoint.manifest_sha256)
    manifest = ResultManifest(step=checkpoint.step, checkpoint=parent, files=files)
    bucket.write(RESULT_MANIFEST, manifest.to_bytes())
    return [*(f"{RESULT}/{name}" for name in files), RESULT_MANIFEST]


def _blocks(path: Path) -> Iterator[Buffer]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def _hashed(data: Iterable[Buffer], digest: "hashlib._Hash") -> Iterator[Buffer]:
    for block in data:
        digest.update(block)
        yield block
