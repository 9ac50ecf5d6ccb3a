"""An attempt on a VM stops itself when its share of the cap is spent, by whatever clocks, whatever a watchdog does."""

import threading
from pathlib import Path

import pytest

from job.agent.budget import LOOK_S, STOP_S, Budget
from job.errors import NeedsPerson
from job.run.claims import Claim, Claims, SeenEnd
from job.run.costs import TAIL_S, share_s
from job.run.spec import Machine, Spec, SpecModel, write_spec
from job.storage import Bucket, open_bucket

BUCKET_S = 1_790_000_000.0
USD_PER_HOUR = 3.6  # a tenth of a cent a second
PATIENCE_S = 20.0


def spec(max_usd: float, revision: int = 1) -> Spec:
    machine = Machine(
        gpu="l4", project="p", image="i", boot_image="b", boot_disk_gb=50, service_account="a", max_usd=max_usd
    )
    return Spec(
        revision=revision,
        recipe={},
        model=SpecModel(name="tiny"),
        machine=machine,
        fingerprint="f",
        started_by="me",
        created_at=BUCKET_S,
    )


def vm(number: int = 1, *, ago_s: float = 0.0, ran_s: float | None = None, price: float | None = USD_PER_HOUR) -> Claim:
    end = None if ran_s is None else SeenEnd(how="preempted", at_s=BUCKET_S, ran_from_s=BUCKET_S - ran_s)
    return Claim(number=number, kind="vm", claimed_at_s=BUCKET_S - ago_s, usd_per_hour=price, ended=end)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket((tmp_path / "run").as_uri())


class Watched:
    """A budget whose machine's seconds are set by the test."""

    def __init__(self, bucket: Bucket, max_usd: float, number: int = 1) -> None:
        self.up_s = 5000.0
        self.spent = threading.Event()
        self.budget = Budget(bucket, number, spec(max_usd), lambda what: self.spent.set(), now=lambda: self.up_s)


def test_a_share_is_what_is_left_of_the_cap_by_its_own_price_from_the_claim_on() -> None:
    assert share_s(1.0, [vm()], 1) == pytest.approx(1000)
    before = vm(1, ran_s=300)
    assert share_s(1.0, [before, vm(2)], 2) == pytest.approx(1000 - 300 - TAIL_S)
    open_still = vm(1, ago_s=100)
    assert share_s(1.0, [open_still, vm(2)], 2) == pytest.approx(900), "one that nobody saw end counts"
    assert share_s(1.0, [vm(price=None)], 1) is None
    assert share_s(1.0, [Claim(number=1, kind="process", claimed_at_s=0)], 1) is None
    assert share_s(1.0, [], 1) is None


@pytest.mark.parametrize("skew_s", [-86_400.0, 0.0, 86_400.0])
def test_time_is_the_buckets_and_the_machines_own_seconds_whatever_its_clock_says(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, skew_s: float
) -> None:
    monkeypatch.setattr("time.time", lambda: BUCKET_S + skew_s)
    watched = Watched(bucket, 1.0)
    assert watched.budget.left_s() is None, "nothing is known before the first heartbeat"
    watched.budget.hear(BUCKET_S + 200, Claims(attempts=(vm(),)))
    assert watched.budget.left_s() == pytest.approx(800)
    watched.up_s += 300
    assert watched.budget.left_s() == pytest.approx(500), "without another word from the bucket"
    watched.budget.hear(BUCKET_S - 40, Claims(attempts=(vm(),)))
    assert watched.budget.left_s() == pytest.approx(1000), "a claim of the future counts as one of now"


def test_it_stops_while_there_is_time_to_save_and_not_before(bucket: Bucket) -> None:
    write_spec(bucket, spec(1.0))
    watched = Watched(bucket, 1.0)
    watched.budget.start()
    watched.budget.hear(BUCKET_S + 1000 - STOP_S - 1, Claims(attempts=(vm(),)))
    assert not watched.spent.wait(0.3)
    watched.budget.hear(BUCKET_S + 1000 - STOP_S, Claims(attempts=(vm(),)))
    assert watched.spent.wait(PATIENCE_S)


def test_it_stops_also_where_no_heartbeat_comes_through_any_more(bucket: Bucket) -> None:
    watched = Watched(bucket, 1.0)
    watched.budget.hear(BUCKET_S + 1000 - STOP_S - 0.2, Claims(attempts=(vm(),)))
    watched.budget = Budget(bucket, 1, spec(1.0), lambda what: watched.spent.set())
    watched.budget.hear(BUCKET_S + 1000 - STOP_S - 0.2, Claims(attempts=(vm(),)))
    watched.budget.start()
    assert watched.spent.wait(PATIENCE_S)


def test_a_cap_that_was_raised_meanwhile_counts(bucket: Bucket) -> None:
    write_spec(bucket, spec(1.0))
    write_spec(bucket, spec(2.0, revision=2))
    watched = Watched(bucket, 1.0)
    watched.budget.hear(BUCKET_S + 1000 - STOP_S - LOOK_S / 2, Claims(attempts=(vm(),)))
    watched.budget.start()
    assert not watched.spent.wait(0.3)
    left_s = watched.budget.left_s()
    assert left_s == pytest.approx(1000 + STOP_S + LOOK_S / 2)
    watched.budget.hear(BUCKET_S + 2000 - STOP_S, Claims(attempts=(vm(),)))
    assert watched.spent.wait(PATIENCE_S)


def test_a_vm_that_a_wrong_watchdog_created_needs_a_person(bucket: Bucket) -> None:
    spent = (vm(1, ran_s=1000), vm(2))
    with pytest.raises(NeedsPerson, match=r"the cap of \$1.00 is reached: attempt 2") as refused:
        Watched(bucket, 1.0, 2).budget.refuse_spent(Claims(attempts=spent))
    assert "--max-usd 2.00" in refused.value.fix
    Watched(bucket, 1.2, 2).budget.refuse_spent(Claims(attempts=spent))


def test_a_process_has_no_cap(bucket: Bucket) -> None:
    own = Claims(attempts=(Claim(number=1, kind="process", claimed_at_s=0.0),))
    watched = Watched(bucket, 0.01)
    watched.budget.refuse_spent(own)
    watched.budget.hear(BUCKET_S, own)
    assert watched.budget.left_s() is None
