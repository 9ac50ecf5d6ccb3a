"""The guards of the production code. Each can be taken out while a search runs, which must then find something."""

import contextlib
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import job.checkpoint.restore
import job.checkpoint.retention
import job.checkpoint.save
import job.run.claims
import job.run.head
from job.checkpoint.manifest import ManifestFile
from job.checkpoint.retention import delete_dropped
from job.run.head import Owner
from job.storage.chunks import chunks, crc32c

Mutation = Callable[[], contextlib.AbstractContextManager[object]]
MUTATIONS: dict[str, Mutation] = {}


def mutation(change: Callable[[], contextlib.AbstractContextManager[object]]) -> Mutation:
    """Lists a mutation by its function's name."""
    MUTATIONS[change.__name__.replace("_", "-")] = change
    return change


def edited(owner: Any, name: str, old: str, new: str) -> contextlib.AbstractContextManager[object]:
    """A function of a module or class, with another text in the one place where `old` stands."""
    function = inspect.getattr_static(owner, name)
    function = getattr(function, "__func__", function)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{name} has {source.count(old)} times {old!r}: the guard has moved"
    made: dict[str, Any] = {}
    module = vars(sys.modules[function.__module__])
    exec(compile(source.replace(old, new), inspect.getsourcefile(function) or "", "exec"), module, made)
    return mock.patch.object(owner, name, made[name])


def numbered_the_same(module: Any) -> contextlib.AbstractContextManager[object]:
    """A module whose random numbers are one number."""
    return mock.patch.object(module, "secrets", types.SimpleNamespace(token_hex=lambda count: "0" * 2 * count))


@mutation
def precondition_of_head() -> contextlib.AbstractContextManager[object]:
    """Head is written whatever is there."""
    return edited(Owner, "_write", ", if_generation=self._generation", "")


@mutation
def precondition_of_claims() -> contextlib.AbstractContextManager[object]:
    """Claims are written whatever is there."""
    return edited(job.run.claims, "update_claims", ", if_generation=generation", "")


@mutation
def precondition_of_files() -> contextlib.AbstractContextManager[object]:
    """A checkpoint's files are written over what is there."""
    return edited(job.checkpoint.save, "_create", ", if_generation=0", "")


@mutation
def owner_test() -> contextlib.AbstractContextManager[object]:
    """An attempt takes over from a newer one."""
    return edited(job.run.head, "_taken_over", "(attempt, incarnation) <= before.owner", "False")


@mutation
def finished_test() -> contextlib.AbstractContextManager[object]:
    """A finished run is taken over."""
    return edited(job.run.head, "_taken_over", "before.status is Status.FINISHED", "False")


@mutation
def wanted_test() -> contextlib.AbstractContextManager[object]:
    """A run that was stopped is claimed."""
    return mock.patch.object(job.run.claims, "refuse_unwanted")


@mutation
def nonce_of_folders() -> contextlib.AbstractContextManager[object]:
    """The same step of the same attempt has the same folder each time."""
    return numbered_the_same(job.checkpoint.save)


@mutation
def nonce_of_head() -> contextlib.AbstractContextManager[object]:
    """Every write of head has the same write_id."""
    return numbered_the_same(job.run.head)


@mutation
@contextlib.contextmanager
def manifest_last() -> Iterator[None]:
    """The MANIFEST is written before the files."""
    waiting: list[tuple[str, bytes]] = []
    write_manifest = job.checkpoint.save._write_manifest

    def files_later(bucket: Any, folder: str, files: Any, sha256: bool) -> dict[str, ManifestFile]:
        joined = {name: b"".join(chunks(data)) for name, data in files.items()}
        waiting[:] = [(f"{folder}/{name}", data) for name, data in joined.items()]
        return {name: ManifestFile(size_bytes=len(data), crc32c=crc32c(data)) for name, data in joined.items()}

    def manifest_now(bucket: Any, folder: str, manifest: Any) -> Any:
        found = write_manifest(bucket, folder, manifest)
        for name, data in list(waiting):
            bucket.write(name, data, if_generation=0)
        return found

    with (
        mock.patch.object(job.checkpoint.save, "_write_files", files_later),
        mock.patch.object(job.checkpoint.save, "_write_manifest", manifest_now),
    ):
        yield


@mutation
def checksum() -> contextlib.AbstractContextManager[object]:
    """A restore takes whatever bytes come, as long as they are as many as they should be."""
    return edited(job.checkpoint.restore, "read_file", "info.crc32c != file.crc32c", "False")


@mutation
def kept_before_delete() -> contextlib.AbstractContextManager[object]:
    """What the new head is not going to keep is deleted before that head is written."""
    publish = Owner.publish

    def deleting(self: Owner, **given: Any) -> Any:
        stays = {ref.folder for ref in given.get("kept") or self.head.kept}
        delete_dropped(self._bucket, [ref for ref in self.head.kept if ref.folder not in stays], ())
        return publish(self, **given)

    return mock.patch.object(Owner, "publish", deleting)


@mutation
def kept_is_no_garbage() -> contextlib.AbstractContextManager[object]:
    """The garbage collection does not look at what head keeps."""
    return mock.patch(
        "job.agent.uploader.garbage",
        lambda head, names: job.checkpoint.retention.garbage(
            head.model_copy(update={"kept": (), "checkpoint": None}), names
        ),
    )


@mutation
def read_back() -> contextlib.AbstractContextManager[object]:
    """After a lost reply nobody looks whether the write was one's own."""
    return edited(Owner, "_look_again", "found[0].write_id in self._uncertain", "False")


@mutation
def read_back_of_claims() -> contextlib.AbstractContextManager[object]:
    """After a lost reply the number is claimed again."""
    return edited(job.run.claims, "update_claims", "write_id in mine", "False")


@mutation
def deleted_manifest_first() -> contextlib.AbstractContextManager[object]:
    """A checkpoint that is deleted loses its files first."""

    def last(bucket: Any, folder: str) -> None:
        for info in reversed(list(bucket.list(f"{folder}/"))):
            bucket.delete(info.name)

    return mock.patch.object(job.checkpoint.retention, "delete_folder", last)
