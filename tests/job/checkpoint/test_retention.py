"""Retention keeps what it promises for every history, and deletes nothing that head lists."""

from hypothesis import given
from hypothesis import strategies as st

from job.checkpoint.retention import delete_dropped, garbage, kept_after
from job.run.head import CheckpointRef, Head, Owner, Status, read_head
from job.run.layout import blob_name
from job.storage import Bucket


def ref(step: int, attempt: int = 1, nonce: int = 0) -> CheckpointRef:
    return CheckpointRef(
        folder=f"checkpoints/{step:06d}-{attempt:04d}-{nonce:08x}", step=step, attempt=attempt, manifest_crc32c=0
    )


@given(
    steps=st.lists(st.integers(0, 60), min_size=1, max_size=40).map(sorted),
    keep_last=st.integers(2, 5),
    keep_every_steps=st.none() | st.integers(1, 20),
    best=st.none() | st.integers(0, 39),
)
def test_whatever_the_history_the_newest_the_kth_and_the_best_stay(
    steps: list[int], keep_last: int, keep_every_steps: int | None, best: int | None
) -> None:
    """Steps may repeat: a successor saves a step again that its predecessor had saved."""
    history = [ref(step, nonce=n) for n, step in enumerate(steps)]
    best_ref = history[best % len(history)] if best is not None else None
    kept: tuple[CheckpointRef, ...] = ()
    for position, new in enumerate(history):
        known = best_ref if best_ref in history[:position] else None
        before = kept
        kept = kept_after(kept, new, keep_last=keep_last, keep_every_steps=keep_every_steps, best=known)
        assert kept[0] == new
        assert set(kept) <= {new, *before}
        assert [r.step for r in kept] == sorted({r.step for r in kept}, reverse=True)
        distinct = sorted({r.step for r in history[: position + 1]}, reverse=True)
        assert [r.step for r in kept][: min(keep_last, len(distinct))] == distinct[:keep_last]
        kept_steps = {r.step for r in kept}
        if keep_every_steps is not None:
            assert {s for s in distinct if s > 0 and s % keep_every_steps == 0} <= kept_steps
        if known is not None and known in before and known.step != new.step:
            assert known in kept
        extra = kept[keep_last:]
        assert all((keep_every_steps and r.step % keep_every_steps == 0) or r == known for r in extra)


def test_a_checkpoint_with_a_new_addition_takes_its_own_place() -> None:
    scored = ref(5).model_copy(update={"addition": "scored-1", "addition_crc32c": 1})
    assert kept_after((ref(5), ref(4)), scored, keep_last=2, keep_every_steps=None) == (scored, ref(4))


def test_the_deletion_takes_the_manifest_first_and_nothing_else(bucket: Bucket) -> None:
    for r in (ref(1), ref(10)):
        for name in ("MANIFEST.json", "a", "scored-1/b"):
            bucket.write(f"{r.folder}/{name}", b"")
    delete_dropped(bucket, [ref(1)], [])
    assert {info.name.split("/")[1] for info in bucket.list("")} == {ref(10).folder.split("/")[1]}
    delete_dropped(bucket, [ref(1)], [])


def test_a_blob_goes_with_the_last_checkpoint_that_has_it(bucket: Bucket) -> None:
    first, second, third = (
        ref(n).model_copy(update={"blobs": (blob * 64,)}) for n, blob in ((1, "a"), (2, "a"), (3, "b"))
    )
    for name in ("a", "b", "c"):
        bucket.write(blob_name(name * 64), b"")
    delete_dropped(bucket, [first], [third, second])
    assert bucket.stat(blob_name("a" * 64)) is not None
    delete_dropped(bucket, [second], [third])
    assert [info.name for info in bucket.list("blobs/")] == [blob_name("b" * 64), blob_name("c" * 64)]


def test_garbage_is_what_no_head_lists_and_no_living_attempt_can_be_writing(bucket: Bucket) -> None:
    owner = Owner.take_over(bucket, 3)
    owner.publish(checkpoint=ref(7, attempt=2))
    names = [
        f"{r.folder}/{file}"
        for r in (
            ref(7, attempt=2),
            ref(7, attempt=2, nonce=1),
            ref(8, attempt=3),
            ref(9, attempt=4),
            ref(6, attempt=1),
        )
        for file in ("MANIFEST.json", "meta.json")
    ]
    head = read_head(bucket)
    assert head is not None
    assert garbage(head, [*names, "checkpoints/note.txt"]) == [
        ref(6, attempt=1).folder,
        ref(7, attempt=2, nonce=1).folder,
    ]


def test_a_head_without_checkpoints_protects_its_own_attempt_only() -> None:
    head = Head(attempt=2, incarnation=0, status=Status.RUNNING, write_id="w")
    names = [f"{ref(1, attempt=a).folder}/MANIFEST.json" for a in (1, 2)]
    assert garbage(head, names) == [ref(1, attempt=1).folder]
