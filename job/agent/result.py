"""The result of a finished run: files that others may rely on, written once head says `finishing`."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from job.checkpoint.manifest import ManifestFile, Parent, ResultManifest
from job.errors import Transient
from job.run.blobs import read_hashed
from job.run.head import CheckpointRef, Owner
from job.run.layout import RESULT, RESULT_MANIFEST
from job.run.segments import join_metrics, read_rows
from job.storage import Bucket, PreconditionFailed
from job.views.report import render
from job.views.report_data import finished_report


def publish_result(
    bucket: Bucket, owner: Owner, folder: Path, checkpoint: CheckpointRef, say: Callable[[str], None]
) -> list[str]:
    """Writes result/ from the trainer's files and the run's rows, its MANIFEST last. Returns the names written.

    Safe to repeat: every attempt that gets here derives the same model and metrics from the checkpoint that head
    names. `say` takes a line for people. Raises Fenced when a newer attempt owns the run: nothing of it was changed.
    """
    files: dict[str, ManifestFile] = {}

    def write(name: str, data: bytes | Path) -> None:
        files[name] = _write(bucket, owner, f"{RESULT}/{name}", data)

    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        write(path.relative_to(folder).as_posix(), path)
    rows = join_metrics(read_rows(bucket, "metrics"), checkpoint.step)
    write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    try:
        page = render(finished_report(bucket, rows, files))
    except Transient:  # the bucket is out of reach for the result too
        raise
    except Exception as error:  # a damaged record of an old attempt, or a bug there: the model is what counts
        say(f"warning: result/ has no report ({type(error).__name__}: {error})")
    else:
        write("report.html", page.encode())
    parent = Parent(folder=checkpoint.folder, manifest_sha256=checkpoint.manifest_sha256)
    manifest = ResultManifest(step=checkpoint.step, checkpoint=parent, files=files)
    _write(bucket, owner, RESULT_MANIFEST, manifest.to_bytes())
    return [*(f"{RESULT}/{name}" for name in files), RESULT_MANIFEST]


def _write(bucket: Bucket, owner: Owner, name: str, data: bytes | Path) -> ManifestFile:
    """Writes over what was there before this attempt was known to own the run, and over nothing newer.

    Raises Fenced. An attempt that was frozen here and wakes when the run is finished changes nothing.
    """
    while True:
        before = bucket.stat(name)
        owner.confirm()  # after the look: whatever a newer owner writes has another generation
        digest = hashlib.sha256() if isinstance(data, Path) else hashlib.sha256(data)
        content = read_hashed(data, digest) if isinstance(data, Path) else data
        try:
            info = bucket.write(name, content, if_generation=0 if before is None else before.generation)
        except PreconditionFailed:
            continue
        assert info.crc32c is not None
        return ManifestFile(size_bytes=info.size_bytes, crc32c=info.crc32c, sha256=digest.hexdigest())
