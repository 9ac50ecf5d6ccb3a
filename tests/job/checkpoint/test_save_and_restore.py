"""A checkpoint is there whole or not at all: killed at any storage call of a save, restore finds the one before or the
new one; damaged in any way, it is set aside with its reason and the one before is used; never a silent step 0."""

import hashlib
import multiprocessing
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from faults import FaultyBucket, Killed

from job.arena import TensorSpec, parse_safetensors_header, safetensors_header
from job.checkpoint.manifest import Manifest, ManifestFile
from job.checkpoint.restore import Restored, restore_newest
from job.checkpoint.retention import delete_dropped, kept_after
from job.checkpoint.save import save_addition, save_checkpoint, save_shared
from job.errors import Fenced, NeedsPerson, Transient
from job.run.head import CheckpointRef, Head, Owner, read_head
from job.storage import Bucket, Data, PreconditionFailed, open_bucket

BIG_BYTES = 700_000  # several chunks
HEAD_WRITE = 4  # of a save's storage calls, counted from 0: three files, MANIFEST, head


def content(step: int) -> dict[str, bytes]:
    """What the checkpoint of a step holds, as a function of the step."""
    return {
        "state.safetensors": bytes([step]) * BIG_BYTES,
        "extra.safetensors": f"extra {step}".encode(),
        "meta.json": f'{{"global_step": {step}}}'.encode(),
    }


def save(bucket: Bucket, owner: Owner, step: int, *, sha256: bool = False) -> CheckpointRef:
    files: dict[str, Data] = dict(content(step))
    state = content(step)["state.safetensors"]
    files["state.safetensors"] = [state[:8], memoryview(bytearray(state[8:300_000])), memoryview(state)[300_000:]]
    return save_checkpoint(
        bucket,
        step=step,
        attempt=owner.head.attempt,
        incarnation=owner.head.incarnation,
        fingerprint="f",
        files=files,
        sha256=sha256,
        parent=owner.head.checkpoint,
    )


def commit(bucket: Bucket, owner: Owner, ref: CheckpointRef) -> None:
    kept = kept_after(owner.head.kept, ref, keep_last=2, keep_every_steps=None)
    delete_dropped(bucket, owner.publish(checkpoint=ref, kept=kept), kept)


def restore(bucket: Bucket) -> tuple[Restored, dict[str, bytes]]:
    head = read_head(bucket)
    assert head is not None
    buffers: dict[str, memoryview] = {}

    def allocate(name: str, size_bytes: int) -> memoryview:
        buffers[name] = memoryview(bytearray(size_bytes))
        return buffers[name]

    found = restore_newest(bucket, head, allocate)
    return found, {name: bytes(buffer) for name, buffer in buffers.items()}


def run_of(bucket: Bucket, steps: int, *, sha256: bool = False) -> Owner:
    owner = Owner.take_over(bucket, 1)
    for step in range(1, steps + 1):
        commit(bucket, owner, save(bucket, owner, step, sha256=sha256))
    return owner


@pytest.mark.parametrize("sha256", [False, True])
def test_what_was_saved_is_restored_byte_for_byte(bucket: Bucket, sha256: bool) -> None:
    owner = run_of(bucket, 3, sha256=sha256)
    found, files = restore(bucket)
    assert files == content(3)
    assert found.checkpoint == owner.head.checkpoint
    assert found.kept == owner.head.kept
    assert (found.addition, found.quarantined) == (None, ())
    assert {file.sha256 is not None for file in found.manifest.files.values()} == {sha256}


def test_only_what_is_kept_is_left_in_the_bucket(bucket: Bucket) -> None:
    owner = run_of(bucket, 5)
    assert [ref.step for ref in owner.head.kept] == [5, 4]
    folders = {info.name.split("/")[1] for info in bucket.list("checkpoints/")}
    assert folders == {ref.folder.split("/")[1] for ref in owner.head.kept}


def test_the_largest_file_is_asked_for_first(bucket: Bucket) -> None:
    run_of(bucket, 1)
    head, asked = read_head(bucket), []
    assert head is not None

    def allocate(name: str, size_bytes: int) -> memoryview:
        asked.append(name)
        return memoryview(bytearray(size_bytes))

    restore_newest(bucket, head, allocate)
    assert asked[0] == "state.safetensors"


def test_tensors_in_shared_memory_become_a_safetensors_file(bucket: Bucket) -> None:
    memory = memoryview(bytearray(b"aaaa....bbbbbbbb"))
    index = {"a": TensorSpec("F32", (1,), 0, 4), "b": TensorSpec("F32", (2,), 8, 8)}
    data = [safetensors_header(index), *(memory[t.offset : t.offset + t.size_bytes] for t in index.values())]
    ref = save_checkpoint(
        bucket, step=1, attempt=1, incarnation=0, fingerprint="f", files={"state.safetensors": data}, sha256=True
    )
    file, _ = bucket.read(f"{ref.folder}/state.safetensors")
    parsed = parse_safetensors_header(file)
    assert {name: file[t.offset : t.offset + t.size_bytes] for name, t in parsed.items()} == {
        "a": b"aaaa",
        "b": b"bbbbbbbb",
    }


def test_an_addition_comes_back_with_its_checkpoint_and_a_later_one_replaces_it(bucket: Bucket) -> None:
    owner = run_of(bucket, 2)
    assert owner.head.checkpoint is not None
    for text in (b"first", b"second"):
        ref = save_addition(
            bucket, owner.head.checkpoint, {"scored.safetensors": [text], "scored.json": b"{}"}, sha256=False
        )
        commit(bucket, owner, ref)
    found, files = restore(bucket)
    assert files == {**content(2), "scored.safetensors": b"second", "scored.json": b"{}"}
    assert found.checkpoint == ref
    assert found.addition is not None
    assert [ref.step for ref in owner.head.kept] == [2, 1]


def test_a_request_that_the_network_doubled_is_trouble_that_passes(faulty: FaultyBucket) -> None:
    owner = run_of(faulty, 1)

    def doubled(number: int, method: str, name: str) -> BaseException | None:
        return PreconditionFailed(name) if method == "write" and name.endswith("/meta.json") else None

    faulty.after = doubled
    with pytest.raises(Transient, match=r"meta\.json was there before"):
        save(faulty, owner, 2)
    faulty.after = lambda number, method, name: None
    commit(faulty, owner, save(faulty, owner, 2))
    assert restore(faulty)[1] == content(2)


def calls_of_a_save(tmp_path: Path) -> int:
    """How many storage calls it takes to save, commit and drop the oldest of three."""
    faulty = FaultyBucket(_bucket(tmp_path / "counted"))
    owner = run_of(faulty, 2)
    before = len(faulty.calls)
    commit(faulty, owner, save(faulty, owner, 3))
    return len(faulty.calls) - before


def _bucket(path: Path) -> Bucket:
    return open_bucket(f"file://{path}")


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
def test_killed_at_any_storage_call_of_a_save_the_run_goes_on_from_a_whole_checkpoint(
    tmp_path: Path, after: bool
) -> None:
    calls = calls_of_a_save(tmp_path)
    assert calls > HEAD_WRITE + 1, "the deletion comes last"
    restored = []
    for number in range(calls):
        faulty = FaultyBucket(_bucket(tmp_path / f"run{number}"))
        owner = run_of(faulty, 2)
        faulty.die_at(number, after=after)
        with pytest.raises(Killed):
            commit(faulty, owner, save(faulty, owner, 3))
        found, files = restore(faulty.inner)
        step = found.checkpoint.step
        assert files == content(step)
        assert found.quarantined == ()
        restored.append(step)
        successor = Owner.take_over(faulty.inner, 2)
        commit(faulty.inner, successor, save(faulty.inner, successor, step + 1))
        assert restore(faulty.inner)[1] == content(step + 1)
    first_with_the_new = HEAD_WRITE if after else HEAD_WRITE + 1
    assert restored == [2] * first_with_the_new + [3] * (calls - first_with_the_new)


def test_killed_while_an_addition_is_saved_the_checkpoint_stands(tmp_path: Path) -> None:
    for number in range(4):
        faulty = FaultyBucket(_bucket(tmp_path / f"run{number}"))
        owner = run_of(faulty, 2)
        assert owner.head.checkpoint is not None
        faulty.die_at(number, after=False)
        with pytest.raises(Killed):
            commit(faulty, owner, save_addition(faulty, owner.head.checkpoint, {"a": b"1", "b": b"2"}, sha256=False))
        found, files = restore(faulty.inner)
        assert (files, found.addition) == (content(2), None)


def test_a_zombies_save_changes_nothing_that_head_names(bucket: Bucket) -> None:
    zombie = run_of(bucket, 2)
    successor = Owner.take_over(bucket, 2)
    commit(bucket, successor, save(bucket, successor, 3))
    before = read_head(bucket)
    with pytest.raises(Fenced):
        commit(bucket, zombie, save(bucket, zombie, 3))
    assert read_head(bucket) == before
    assert restore(bucket)[0].checkpoint.attempt == 2


def flip(bucket: Bucket, name: str) -> None:
    data = bytearray(bucket.read(name)[0])
    data[len(data) // 2] ^= 1
    bucket.write(name, data)


def truncate(bucket: Bucket, name: str) -> None:
    bucket.write(name, bucket.read(name)[0][:-1])


def lengthen(bucket: Bucket, name: str) -> None:
    bucket.write(name, bucket.read(name)[0] + b"\n")


def remove(bucket: Bucket, name: str) -> None:
    bucket.delete(name)


Damage = Callable[[Bucket, str], None]


@pytest.mark.parametrize(
    ("damage", "file", "reason"),
    [
        (flip, "state.safetensors", "state.safetensors has other bytes (crc32c)"),
        (flip, "meta.json", "meta.json has other bytes (crc32c)"),
        (truncate, "state.safetensors", f"state.safetensors does not have {BIG_BYTES} bytes"),
        (lengthen, "meta.json", "meta.json does not have 18 bytes"),
        (remove, "extra.safetensors", "extra.safetensors is missing"),
        (remove, "MANIFEST.json", "MANIFEST.json is missing"),
        (flip, "MANIFEST.json", "MANIFEST.json is not the one that head names (crc32c)"),
        (lengthen, "MANIFEST.json", "MANIFEST.json is not the one that head names (crc32c)"),
    ],
)
def test_a_damaged_checkpoint_is_quarantined_and_the_one_before_is_used(
    bucket: Bucket, damage: Damage, file: str, reason: str
) -> None:
    owner = run_of(bucket, 3)
    newest, before = owner.head.kept
    damage(bucket, f"{newest.folder}/{file}")
    found, files = restore(bucket)
    assert (found.checkpoint, found.kept) == (before, (before,))
    assert {name: files[name] for name in content(2)} == content(2)
    assert [(bad.folder, bad.step, bad.reason) for bad in found.quarantined] == [(newest.folder, 3, reason)]

    successor = Owner.take_over(bucket, 2)
    dropped = successor.publish(kept=found.kept, quarantined={bad.folder for bad in found.quarantined})
    assert dropped == ()
    assert read_head(bucket) == successor.head
    assert successor.head.checkpoint == before


def test_the_wrong_crc_in_head_quarantines_as_well(bucket: Bucket) -> None:
    owner = run_of(bucket, 2)
    newest, before = owner.head.kept
    wrong = newest.model_copy(update={"manifest_crc32c": newest.manifest_crc32c ^ 1})
    owner.publish(kept=[wrong, before])
    assert restore(bucket)[0].checkpoint == before


def test_a_manifest_of_another_step_is_quarantined(bucket: Bucket) -> None:
    owner = run_of(bucket, 2)
    newest, before = owner.head.kept
    owner.publish(kept=[newest.model_copy(update={"step": 3}), before])
    found, _ = restore(bucket)
    assert found.quarantined[0].reason == "MANIFEST.json is of step 2 by attempt 1"


def test_a_sha256_is_checked_where_there_is_one(bucket: Bucket) -> None:
    owner = run_of(bucket, 2, sha256=True)
    newest = owner.head.kept[0]
    manifest = Manifest.model_validate_json(bucket.read(f"{newest.folder}/MANIFEST.json")[0])
    files = dict(manifest.files)
    files["meta.json"] = files["meta.json"].model_copy(update={"sha256": "0" * 64})
    forged = manifest.model_copy(update={"files": files})
    crc = bucket.write(f"{newest.folder}/MANIFEST.json", forged.to_bytes()).crc32c
    owner.publish(kept=[newest.model_copy(update={"manifest_crc32c": crc}), owner.head.kept[1]])
    found, _ = restore(bucket)
    assert found.checkpoint.step == 1
    assert found.quarantined[0].reason == "meta.json has other bytes (sha256)"


@pytest.mark.parametrize("file", ["scored.safetensors", "MANIFEST.json"])
def test_a_damaged_addition_drops_only_the_addition(bucket: Bucket, file: str) -> None:
    owner = run_of(bucket, 2)
    plain = owner.head.kept[0]
    ref = save_addition(bucket, plain, {"scored.safetensors": b"scored"}, sha256=False)
    owner.publish(checkpoint=ref)
    flip(bucket, f"{ref.folder}/{ref.addition}/{file}")
    found, files = restore(bucket)
    assert (found.checkpoint, found.addition) == (plain, None)
    assert found.kept == (plain, owner.head.kept[1])
    assert {name: files[name] for name in content(2)} == content(2)
    assert [bad.folder for bad in found.quarantined] == [f"{ref.folder}/{ref.addition}"]


def test_when_none_is_good_a_person_is_needed_and_every_reason_is_said(bucket: Bucket) -> None:
    owner = run_of(bucket, 2)
    flip(bucket, f"{owner.head.kept[0].folder}/state.safetensors")
    remove(bucket, f"{owner.head.kept[1].folder}/meta.json")
    before = bucket.read("head.json")
    with pytest.raises(NeedsPerson) as caught:
        restore(bucket)
    assert "state.safetensors has other bytes" in caught.value.what
    assert "meta.json is missing" in caught.value.what
    assert caught.value.fix
    assert bucket.read("head.json") == before


def test_a_fresh_start_is_no_restore(bucket: Bucket) -> None:
    head: Head = Owner.take_over(bucket, 1).head
    assert head.checkpoint is None
    with pytest.raises(AssertionError):
        restore_newest(bucket, head, lambda name, size_bytes: memoryview(bytearray(size_bytes)))


def test_trouble_that_passes_quarantines_nothing(faulty: FaultyBucket) -> None:
    run_of(faulty, 2)
    faulty.refuse(2, "read_into")
    found, files = restore(faulty)
    assert (found.quarantined, files) == ((), content(2))


def test_trouble_that_stays_is_transient_and_quarantines_nothing(
    faulty: FaultyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("job.run.records.RETRY_WAIT_MAX_S", 0.001)
    run_of(faulty, 2)
    faulty.refuse(10_000, "read_into")
    with pytest.raises(Transient):
        restore(faulty)


def _train_forever(uri: str, attempt: int) -> None:
    bucket = open_bucket(uri)
    owner = Owner.take_over(bucket, attempt)
    step = restore(bucket)[0].checkpoint.step if owner.head.checkpoint else 0
    while True:
        step += 1
        commit(bucket, owner, save(bucket, owner, step % 256))


def test_processes_killed_from_outside_one_after_another_never_lose_a_committed_step(bucket: Bucket) -> None:
    durable = 0
    for attempt in range(1, 7):
        process = multiprocessing.get_context("fork").Process(target=_train_forever, args=(bucket.uri, attempt))
        process.start()
        try:
            goal = durable + attempt % 3 + 1
            end_s = time.monotonic() + 60
            while (head := read_head(bucket)) is None or head.checkpoint is None or head.checkpoint.step < goal:
                assert process.is_alive()
                assert time.monotonic() < end_s
            durable = head.checkpoint.step
        finally:
            process.kill()
            process.join(20)
        found, files = restore(bucket)
        assert found.quarantined == ()
        assert found.checkpoint.step >= durable
        assert files == content(found.checkpoint.step)
        durable = found.checkpoint.step


def test_every_manifest_names_the_one_that_it_was_made_from_also_across_attempts(bucket: Bucket) -> None:
    refs = []
    for attempt, step in ((1, 1), (1, 2), (2, 3)):
        owner = Owner.take_over(bucket, attempt)
        refs.append(save(bucket, owner, step))
        commit(bucket, owner, refs[-1])
    data = {ref.step: bucket.read(f"{ref.folder}/MANIFEST.json")[0] for ref in refs[1:]}
    for before, ref in pairwise(refs):
        assert ref.manifest_sha256 == hashlib.sha256(data[ref.step]).hexdigest()
        parent = Manifest.model_validate_json(data[ref.step]).parent
        assert parent is not None
        assert (parent.folder, parent.manifest_sha256) == (before.folder, before.manifest_sha256)
    assert restore(bucket)[0].manifest.parent is not None


def with_shared(bucket: Bucket, owner: Owner, step: int, reference: bytes) -> ManifestFile:
    """Commits a checkpoint that shares a file with others; returns what its MANIFEST says of that file."""
    shared = save_shared(bucket, [reference[:5], memoryview(reference)[5:]])
    ref = save_checkpoint(
        bucket,
        step=step,
        attempt=owner.head.attempt,
        incarnation=0,
        fingerprint="f",
        files=content(step),
        sha256=False,
        parent=owner.head.checkpoint,
        shared={"reference.safetensors": shared},
    )
    commit(bucket, owner, ref)
    return shared


def test_a_file_that_checkpoints_share_is_stored_once_and_goes_with_the_last_of_them(faulty: FaultyBucket) -> None:
    owner = Owner.take_over(faulty, 1)
    old, new = b"old" * BIG_BYTES, b"new" * BIG_BYTES
    name = with_shared(faulty, owner, 1, old).path("", "")
    with_shared(faulty, owner, 2, old)
    assert faulty.calls.count(("write", name)) == 1
    assert restore(faulty)[1]["reference.safetensors"] == old
    with_shared(faulty, owner, 3, new)
    assert [info.name for info in faulty.list("blobs/")].count(name) == 1, "step 2 is kept and has it"
    with_shared(faulty, owner, 4, new)
    assert [info.size_bytes for info in faulty.list("blobs/")] == [len(new)]
    assert restore(faulty)[1]["reference.safetensors"] == new


@pytest.mark.parametrize("damage", [b"NEW" * BIG_BYTES, b"shorter", None])
def test_a_shared_file_that_is_damaged_is_seen_and_written_anew(bucket: Bucket, damage: bytes | None) -> None:
    owner = Owner.take_over(bucket, 1)
    data = b"new" * BIG_BYTES
    with_shared(bucket, owner, 1, b"old")
    name = with_shared(bucket, owner, 2, data).path("", "")
    if damage is None:
        bucket.delete(name)
    else:
        bucket.write(name, damage)
    found, files = restore(bucket)
    assert (found.checkpoint.step, files["reference.safetensors"][:3]) == (1, b"old")
    assert "reference.safetensors" in found.quarantined[0].reason
    save_shared(bucket, [data])
    assert bucket.read(name)[0] == data
