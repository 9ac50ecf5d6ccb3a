"""What only a folder can get wrong: who may write it, a full disk, killed writers, a lock that is not given back."""

import errno
import fcntl
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pytest

from job.errors import ExitCode, NeedsPerson, Transient, UsageError
from job.storage import PreconditionFailed, folder
from job.storage.direct import BLOCK_BYTES
from job.storage.file import FileBucket
from job.storage.folder import LOCK, TEMPORARY


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "run"


@pytest.fixture
def bucket(root: Path) -> FileBucket:
    return FileBucket(f"file://{root}")


def test_objects_are_plain_files_that_others_may_read(bucket: FileBucket, root: Path) -> None:
    bucket.write("result/adapter/adapter_model.safetensors", b"weights")
    path = root / "result/adapter/adapter_model.safetensors"
    assert path.read_bytes() == b"weights"
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o644 & ~umask


def test_reading_makes_nothing(bucket: FileBucket, root: Path) -> None:
    assert bucket.stat("head.json") is None
    assert list(bucket.list("")) == []
    bucket.delete("head.json")
    assert not root.parent.exists()


def test_a_delete_takes_the_empty_folders_along(bucket: FileBucket, root: Path) -> None:
    bucket.write("a/b/c", b"")
    bucket.write("a/d", b"")
    bucket.delete("a/b/c")
    assert not (root / "a/b").exists()
    assert (root / "a/d").exists()
    bucket.delete("a/d")
    assert not (root / "a").exists()
    assert root.exists()


def test_the_generation_is_greater_also_when_the_clock_goes_back(
    bucket: FileBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bucket.write("x", b"").generation
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000)
    assert bucket.write("x", b"").generation > before


def test_the_generation_is_greater_also_than_that_of_a_write_that_came_in_between(
    bucket: FileBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.write("x", b"")
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000)
    flush, between = os.fsync, []

    def another_comes_in(fd: int) -> None:
        monkeypatch.setattr(os, "fsync", flush)
        between.append(bucket.write("x", b"between").generation)
        flush(fd)

    monkeypatch.setattr(os, "fsync", another_comes_in)
    assert bucket.write("x", b"last").generation > between[0]


def test_a_copy_of_the_folder_is_the_same_bucket(bucket: FileBucket, root: Path, tmp_path: Path) -> None:
    info = bucket.write("head.json", b"{}")
    root.rename(tmp_path / "moved")
    moved = FileBucket(f"file://{tmp_path}/moved")
    assert moved.read("head.json") == (b"{}", info)


@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (errno.ENOSPC, NeedsPerson, "disk full: "),
        (errno.EDQUOT, NeedsPerson, "disk full: "),
        (errno.EACCES, NeedsPerson, "may not be used: Permission denied"),
        (errno.EROFS, NeedsPerson, "may not be used: Read-only file system"),
        (errno.EIO, Transient, "Input/output error"),
    ],
)
def test_trouble_with_the_disk_is_one_clear_line_and_changes_nothing(
    bucket: FileBucket,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Exception],
    says: str,
) -> None:
    bucket.write("x", b"old")
    write = os.write

    def broken(fd: int, data: memoryview) -> int:
        if len(data) > 1:  # a disk that fills up takes a part first
            return write(fd, data[:1])
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", broken)
        with pytest.raises(error, match=says) as caught:
            bucket.write("x", b"new")
    assert str(root / "x") in str(caught.value)
    assert "\n" not in caught.value.what
    assert bucket.read("x")[0] == b"old"
    assert list((root / TEMPORARY).iterdir()) == []


@pytest.mark.skipif(
    not Path("/sys/kernel").is_dir(), reason="needs Linux's /sys: a folder that not even root may write"
)
def test_a_folder_that_may_not_be_written_needs_a_person() -> None:
    bucket = FileBucket("file:///sys/kernel/baton-run")
    with pytest.raises(NeedsPerson, match="may not be used") as caught:
        bucket.write("head.json", b"")
    assert caught.value.exit_code is ExitCode.NEEDS_PERSON


def test_a_file_in_the_place_of_the_folder_needs_a_person(root: Path) -> None:
    root.parent.mkdir(parents=True)
    root.write_text("a file")
    with pytest.raises(NeedsPerson, match="cannot be made"):
        FileBucket(f"file://{root}").write("head.json", b"")


@pytest.mark.parametrize("uri", ["file://relative/run", "file:relative", "gs://bucket/run"])
def test_only_absolute_file_uris_are_taken(uri: str) -> None:
    with pytest.raises(UsageError):
        FileBucket(uri)


def test_a_uri_is_the_one_of_its_path_with_spaces_and_percent_signs(tmp_path: Path) -> None:
    odd = tmp_path / "50% of it"
    bucket = FileBucket(odd.as_uri())
    bucket.write("x", b"")
    assert (odd / "x").exists()
    assert FileBucket(bucket.uri).root == odd


def _write_and_die(root: Path) -> None:
    def source() -> Iterator[bytes]:
        yield b"half"
        os.kill(os.getpid(), signal.SIGKILL)

    FileBucket(f"file://{root}").write("x", source())


def test_a_writer_that_is_killed_leaves_the_old_object_and_the_next_one_cleans_up(
    bucket: FileBucket, root: Path
) -> None:
    bucket.write("x", b"old")
    killed = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(root,))
    killed.start()
    killed.join(20)
    assert killed.exitcode == -signal.SIGKILL
    assert bucket.read("x")[0] == b"old"
    assert [info.name for info in bucket.list("")] == ["x"]
    assert len(list((root / TEMPORARY).iterdir())) == 1
    FileBucket(f"file://{root}").write("y", b"")
    assert list((root / TEMPORARY).iterdir()) == []


def test_a_writer_that_is_alive_keeps_its_temporary_file(bucket: FileBucket, root: Path) -> None:
    def source() -> Iterator[bytes]:
        yield b"first "
        other = multiprocessing.get_context("fork").Process(target=FileBucket(f"file://{root}").write, args=("y", b""))
        other.start()
        other.join(20)
        assert other.exitcode == 0
        yield b"second"

    bucket.write("x", source())
    assert bucket.read("x")[0] == b"first second"
    assert bucket.stat("y") is not None


def test_a_write_that_was_overtaken_while_it_streamed_is_refused(bucket: FileBucket) -> None:
    generation = bucket.write("x", b"old").generation

    def source() -> Iterator[bytes]:
        bucket.write("x", b"faster")
        yield b"slow"

    with pytest.raises(PreconditionFailed):
        bucket.write("x", source(), if_generation=generation)
    assert bucket.read("x")[0] == b"faster"
    late = bucket.write("x", source())
    assert bucket.read("x") == (b"slow", late)


def test_a_lock_that_is_never_given_back_is_transient_trouble(
    bucket: FileBucket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.write("x", b"old")
    monkeypatch.setattr(folder, "LOCK_WAIT_S", 0.05)
    with (root / LOCK).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Transient, match="locked by another process"):
            bucket.write("x", b"new")
    bucket.write("x", b"new")
    assert bucket.read("x")[0] == b"new"


@pytest.mark.parametrize("extra", [-1, 0, 1, 4095])
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_large_objects_are_whole_whatever_pieces_they_come_in(extra: int, place: str, tmp_path: Path) -> None:
    """They go past the page cache, in aligned blocks, where the file system can do that: one in memory cannot."""
    size = 2 * BLOCK_BYTES + extra
    data = random.Random(extra).randbytes(size)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if place == "memory" else tmp_path) as folder:
        bucket = FileBucket(f"file://{folder}")
        pieces = [data[:7], b"", data[7 : BLOCK_BYTES + 3], data[BLOCK_BYTES + 3 :]]
        for name, given in (("whole", data), ("in-pieces", pieces)):
            info = bucket.write(name, given)
            assert (info.size_bytes, info.crc32c) == (size, google_crc32c.value(data))
            assert (Path(folder) / name).read_bytes() == data


def test_a_disk_that_takes_a_part_of_a_block_gets_the_rest(
    bucket: FileBucket, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random.Random(1).randbytes(3 * BLOCK_BYTES)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, view: write(fd, view[: max(512, len(view) // 3 // 512 * 512)]))
    bucket.write("x", data)
    assert (root / "x").read_bytes() == data
