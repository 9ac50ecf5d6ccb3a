"""Verification of a run: reads all that it keeps, recomputes every checksum, follows the lineage. Only reads."""

import hashlib
import mmap
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from job.checkpoint.manifest import Manifest, ManifestFile, ResultManifest
from job.checkpoint.restore import Bad, read_manifest
from job.errors import NeedsPerson, UsageError
from job.run.attempt import AttemptRecord, read_records
from job.run.claims import read_claims
from job.run.head import CheckpointRef, Head, Status, read_head
from job.run.layout import MANIFEST, RESULT, RESULT_MANIFEST, blob_name
from job.run.records import transient_retry
from job.run.spec import Spec, read_spec
from job.storage import Bucket, NotFound
from job.views.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Check(_View):
    """One part of the run: a checkpoint, the result, an input, the lineage."""

    name: str
    files: int = 0
    """Read and compared, MANIFESTs included."""
    size_bytes: int = 0
    sha256: int = 0
    """How many of the files were compared by sha256 too."""
    bad: tuple[str, ...] = ()
    """What is wrong; empty when all is well."""


class Verification(_View):
    """What was looked at, and what came of it."""

    uri: str
    checks: tuple[Check, ...]


def verify(bucket: Bucket) -> Verification:
    """Checks checkpoints that head keeps, the result, the inputs and the lineage.

    A run that goes on drops checkpoints meanwhile: what head no longer lists is left out. Raises UsageError where
    there is nothing yet, Transient when the bucket fails, which says nothing about the run.
    """
    head, spec = read_head(bucket), read_spec(bucket)
    if head is None and spec is None:
        raise UsageError(f"there is no run at {bucket.uri}.", fix="Check the URI; `baton train` starts a run.")
    checks: list[Check] = []
    manifests: dict[str, Manifest] = {}
    for ref in head.kept if head is not None else ():
        check, manifest = _checkpoint(bucket, ref)
        if check.bad and not _is_kept(read_head(bucket), ref):
            continue
        checks.append(check)
        if manifest is not None:
            manifests[ref.folder] = manifest
    if head is not None:
        checks.append(_lineage(head, manifests, _records(bucket)))
        checks += _result(bucket, head)
    if spec is not None:
        checks += _inputs(bucket, spec)
    return Verification(uri=bucket.uri, checks=tuple(checks))


def table(found: Verification) -> "RenderableType":
    """For a terminal."""
    from rich import box
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=Text(printable(found.uri)), title_justify="left")
    for name in ("what", "files", "bytes", "by sha256", "verdict"):
        shown.add_column(name, justify="left" if name in ("what", "verdict") else "right", overflow="fold")
    for check in found.checks:
        verdict = "good" if not check.bad else f"BAD: {'; '.join(check.bad)}"
        counts = (f"{check.files}", decimal(check.size_bytes), f"{check.sha256}")
        shown.add_row(Text(printable(check.name)), *counts, Text(printable(verdict)))
    return shown


def _records(bucket: Bucket) -> list[AttemptRecord]:
    return read_records(bucket, (claim.number for claim in read_claims(bucket).attempts))


def _is_kept(head: Head | None, ref: CheckpointRef) -> bool:
    return head is not None and ref.folder in {kept.folder for kept in head.kept}


def _checkpoint(bucket: Bucket, ref: CheckpointRef) -> tuple[Check, Manifest | None]:
    """One checkpoint with its addition, and its MANIFEST where that is the right one."""
    manifest, bad = _manifest(bucket, ref, ref.folder, ref.manifest_crc32c)
    parts = [(ref.folder, manifest)]
    if ref.addition is not None and ref.addition_crc32c is not None:
        folder = f"{ref.folder}/{ref.addition}"
        addition, bad_addition = _manifest(bucket, ref, folder, ref.addition_crc32c)
        parts, bad = [*parts, (folder, addition)], [*bad, *bad_addition]
    check = Check(name=ref.folder)
    for folder, found in parts:
        if found is not None:
            check = _add(check, _compare(bucket, folder, found.files))
    return _add(check, Check(name="", files=len(parts), bad=tuple(bad))), manifest


def _manifest(bucket: Bucket, ref: CheckpointRef, folder: str, crc32c: int) -> tuple[Manifest | None, list[str]]:
    try:
        manifest = read_manifest(bucket, folder, crc32c)
    except Bad as bad:
        return None, [str(bad)]
    wrong: list[str] = []
    if (manifest.step, manifest.attempt) != (ref.step, ref.attempt):
        wrong.append(f"{MANIFEST} is of step {manifest.step} by attempt {manifest.attempt}")
    if folder == ref.folder and ref.manifest_sha256 is not None:
        data, _ = transient_retry()(bucket.read, f"{folder}/{MANIFEST}")
        if hashlib.sha256(data).hexdigest() != ref.manifest_sha256:
            wrong.append(f"{MANIFEST} is not the one that head names (sha256)")
    return manifest, wrong


def _compare(bucket: Bucket, folder: str, files: Mapping[str, ManifestFile]) -> Check:
    """Reads files one at a time and compares them with a MANIFEST."""
    found = (
        _wrong(bucket, file.path(folder, name), name, file.size_bytes, file.crc32c, file.sha256)
        for name, file in files.items()
    )
    return Check(
        name=folder,
        files=len(files),
        size_bytes=sum(file.size_bytes for file in files.values()),
        sha256=sum(file.sha256 is not None for file in files.values()),
        bad=tuple(filter(None, found)),
    )


def _wrong(bucket: Bucket, path: str, name: str, size_bytes: int, crc32c: int | None, sha256: str | None) -> str | None:
    """What is wrong with one object; None when it is what it should be. It is read into memory as a whole."""
    info = transient_retry()(bucket.stat, path)
    if info is None:
        return f"{name} is missing"
    if info.size_bytes != size_bytes:
        return f"{name} has {info.size_bytes} bytes instead of {size_bytes}"
    with memoryview(mmap.mmap(-1, size_bytes) if size_bytes else b"") as buffer:  # given back page by page, at once
        try:
            read = transient_retry()(bucket.read_into, path, buffer)
        except (NotFound, ValueError):
            return f"{name} changed while it was read"
        if crc32c is not None and read.crc32c != crc32c:
            return f"{name} has other bytes (crc32c)"
        if sha256 is not None and hashlib.sha256(buffer).hexdigest() != sha256:
            return f"{name} has other bytes (sha256)"
    return None


def _lineage(head: Head, manifests: Mapping[str, Manifest], records: Iterable[AttemptRecord]) -> Check:
    """Whether what names an earlier checkpoint names the one that is there. Those that are gone cannot be compared."""
    known = {ref.folder: ref.manifest_sha256 for ref in head.kept if ref.manifest_sha256 is not None}
    bad, compared = [], 0
    for who, folder, sha256 in _references(manifests, records):
        if folder in known and sha256 is not None:
            compared += 1
            if known[folder] != sha256:
                bad.append(f"{who} was made from another {folder}: sha256 {sha256[:12]}…")
    return Check(name="lineage: links to kept checkpoints", files=compared, sha256=compared, bad=tuple(bad))


def _references(
    manifests: Mapping[str, Manifest], records: Iterable[AttemptRecord]
) -> Iterator[tuple[str, str, str | None]]:
    """(who, folder, sha256 of its MANIFEST) of everything that says what it was made from."""
    for folder, manifest in manifests.items():
        if manifest.parent is not None:
            yield folder, manifest.parent.folder, manifest.parent.manifest_sha256
    for record in records:
        if (origin := record.resumed_from) is not None:
            yield f"attempt {record.number}", origin.folder, origin.manifest_sha256


def _result(bucket: Bucket, head: Head) -> list[Check]:
    """The result of a finished run; what another one has there may be half written."""
    if head.status is not Status.FINISHED:
        return []
    try:
        found = ResultManifest.read(bucket, RESULT_MANIFEST)
    except NeedsPerson as error:
        return [Check(name=RESULT, bad=(error.what,))]
    if found is None:
        return [Check(name=RESULT, bad=(f"{MANIFEST} is missing",))]
    manifest = found[0]
    check = _add(_compare(bucket, RESULT, manifest.files), Check(name=RESULT, files=1))
    newest = head.checkpoint
    if newest is None or (manifest.checkpoint.folder, manifest.step) != (newest.folder, newest.step):
        check = _add(check, Check(name="", bad=(f"it derives from {manifest.checkpoint.folder}, head names another",)))
    elif manifest.checkpoint.manifest_sha256 != newest.manifest_sha256:
        check = _add(check, Check(name="", bad=("it derives from a checkpoint with another MANIFEST (sha256)",)))
    return [check]


def _inputs(bucket: Bucket, spec: Spec) -> Iterator[Check]:
    for key, pinned in spec.inputs.items():
        path = blob_name(pinned.sha256)
        bad = _wrong(bucket, path, path.rpartition("/")[2], pinned.bytes, None, pinned.sha256)
        told = () if bad is None else (bad,)
        yield Check(name=f"{key}: {pinned.name}", files=1, size_bytes=pinned.bytes, sha256=1, bad=told)


def _add(first: Check, second: Check) -> Check:
    return Check(
        name=first.name,
        files=first.files + second.files,
        size_bytes=first.size_bytes + second.size_bytes,
        sha256=first.sha256 + second.sha256,
        bad=first.bad + second.bad,
    )
