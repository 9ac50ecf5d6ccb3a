"""Claims: numbers are given once, whoever asks at the same time and however many replies are lost."""

import multiprocessing

import pytest
from faults import FaultyBucket

from job.errors import Fenced, NeedsPerson, Transient, UsageError
from job.run.claims import Claim, Claims, SeenEnd, check_claim, claim_process, read_claims, update_claims
from job.run.layout import CLAIMS
from job.storage import Bucket, open_bucket


def test_the_first_claim_is_number_one_and_replaces_nobody(bucket: Bucket) -> None:
    claim, replaced = claim_process(bucket, "laptop", 42)
    assert (claim.number, claim.kind, claim.host, claim.pid) == (1, "process", "laptop", 42)
    assert replaced is None
    assert read_claims(bucket).attempts == (claim,)


def test_a_claim_says_which_open_one_it_replaces(bucket: Bucket) -> None:
    first, _ = claim_process(bucket, "laptop", 1)
    second, replaced = claim_process(bucket, "laptop", 2)
    assert (second.number, replaced) == (2, first)


def test_a_claim_that_has_ended_is_not_replaced(bucket: Bucket) -> None:
    vm = Claim(number=4, kind="vm", claimed_at_s=1.0, zone="z", vm="v", request_id="r")
    ended = vm.model_copy(update={"ended": SeenEnd(how="preempted", at_s=2.0)})
    update_claims(bucket, lambda claims: claims.model_copy(update={"attempts": (ended,)}))
    claim, replaced = claim_process(bucket, "laptop", 1)
    assert (claim.number, replaced) == (5, None)


def _claim(uri: str, numbers: "multiprocessing.Queue[int]") -> None:
    bucket = open_bucket(uri)
    for _ in range(3):
        numbers.put(claim_process(bucket, "h", 1)[0].number)


def test_processes_that_claim_at_once_get_different_numbers(bucket: Bucket) -> None:
    fork = multiprocessing.get_context("fork")
    numbers: multiprocessing.Queue[int] = fork.Queue()
    crowd = [fork.Process(target=_claim, args=(bucket.uri, numbers)) for _ in range(4)]
    for process in crowd:
        process.start()
    got = [numbers.get(timeout=60) for _ in range(12)]
    for process in crowd:
        process.join(20)
    assert sorted(got) == list(range(1, 13))
    assert [claim.number for claim in read_claims(bucket).attempts] == list(range(1, 13))


@pytest.mark.parametrize("lost", [1, 2])
def test_lost_replies_do_not_claim_twice(faulty: FaultyBucket, lost: int) -> None:
    faulty.lose_replies(lost)
    assert claim_process(faulty, "h", 1)[0].number == 1
    assert claim_process(faulty, "h", 1)[0].number == 2
    assert len(read_claims(faulty.inner).attempts) == 2


def test_a_lost_reply_is_found_to_be_mine_under_the_claims_of_others(faulty: FaultyBucket) -> None:
    others = iter(range(3))

    def taken_over(number: int, method: str, name: str) -> BaseException | None:
        if method != "write" or next(others, None) is None:
            return None
        for _ in range(2):
            claim_process(faulty.inner, "other", 2)
        return Transient("the reply was lost")

    faulty.after = taken_over
    claim, replaced = claim_process(faulty, "h", 1)
    assert (claim.number, claim.host, replaced) == (1, "h", None)
    assert [(claim.number, claim.host) for claim in read_claims(faulty.inner).attempts] == [
        (1, "h"),
        (2, "other"),
        (3, "other"),
    ]


def test_a_bucket_that_stays_down_is_transient_trouble(faulty: FaultyBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("job.run.claims.RETRY_WAIT_MAX_S", 0.001)
    faulty.refuse(1000)
    with pytest.raises(Transient, match="not to be reached"):
        claim_process(faulty, "h", 1)
    assert read_claims(faulty.inner) == Claims()


def test_a_crowd_that_never_lets_go_is_transient_trouble(faulty: FaultyBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("job.run.claims.RETRY_WAIT_MAX_S", 0.001)

    def others(number: int, method: str, name: str) -> BaseException | None:
        if method == "write":
            faulty.inner.write(CLAIMS, Claims(write_id="others").to_bytes())
        return None

    faulty.before = others
    with pytest.raises(Transient, match="changed by others"):
        claim_process(faulty, "h", 1)


@pytest.mark.parametrize(
    ("want", "says"), [("stop", "is stopped: the cap is reached"), ("failed", "has failed: the cap is reached")]
)
def test_a_run_that_is_not_wanted_cannot_be_claimed(bucket: Bucket, want: str, says: str) -> None:
    update_claims(bucket, lambda c: c.model_copy(update={"want": want, "reason": "the cap is reached"}))
    before = bucket.read(CLAIMS)
    with pytest.raises(NeedsPerson, match=says) as caught:
        claim_process(bucket, "h", 1)
    assert "baton resume" in caught.value.fix
    assert bucket.read(CLAIMS) == before


def test_a_number_is_good_until_a_newer_one_is_claimed(bucket: Bucket) -> None:
    mine, _ = claim_process(bucket, "h", 1)
    assert check_claim(bucket, 1) == mine
    claim_process(bucket, "h", 2)
    with pytest.raises(Fenced, match=r"attempt 2 of .* is claimed; this is attempt 1"):
        check_claim(bucket, 1)
    with pytest.raises(UsageError, match=r"attempt 3 of .* was never claimed"):
        check_claim(bucket, 3)
