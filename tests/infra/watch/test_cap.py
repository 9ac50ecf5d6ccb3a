"""The cap is never passed by more than one VM-minute: with the watchdog dead, or wrong, or clocks skewed.

Random lives of runs, by dice. What is played: when VMs come and go, and whose clock is wrong. What is production code:
what is claimed and asked for (recovery.decide, Acting's last look at the cap), how long each VM may run, and when an
attempt stops itself (job/agent/budget.py). A VM is paid from when it runs.
"""

import random
from dataclasses import dataclass, field, replace

import pytest
from seen import MACHINE, NOW_S, URI, claim, offer, wanted

from infra.cloud.types import Vm, VmStatus
from infra.naming import run_labels, vm_name
from infra.recovery import decide
from infra.watch.acting import within_cap
from infra.watch.looks import Clock
from infra.watch.observed import Dated, Observed, Policy
from infra.watch.orders import LONGEST_RUN_S
from infra.watch.spending import longest_run_s
from job.agent.budget import STOP_S, Budget
from job.errors import NeedsPerson
from job.run.claims import Claim, Claims, SeenEnd
from job.run.head import CheckpointRef, Head, Status
from job.run.spec import Spec, SpecModel
from job.storage import open_bucket

LIVES = 60
BEAT_S, LOOK_S = 10.0, 10.0
LEAVE_S = 60.0
"""For an attempt to save, leave and power its machine off, at most; less than it gives itself."""
POLICY = Policy()


@dataclass
class Life:
    """One run, and what it costs in truth."""

    draw: random.Random
    max_usd: float = field(init=False)
    usd: float = 0.0
    dearest: float = 0.0

    def __post_init__(self) -> None:
        self.max_usd = round(self.draw.uniform(0.05, 3.0), 2)

    def price(self) -> float:
        return round(self.draw.uniform(0.3, 6.0), 3)

    def pay(self, price: float, seconds: float) -> None:
        self.usd += price * seconds / 3600
        self.dearest = max(self.dearest, price)

    def check(self) -> None:
        assert self.usd <= self.max_usd + self.dearest / 60, f"${self.usd:.3f} of at most ${self.max_usd:.2f}"


def vm_claim(number: int, price: float, at_s: float) -> Claim:
    return claim(number, claimed_at_s=at_s, usd_per_hour=price, instance_id=str(number))


def leaves_at_s(life: Life, claims: Claims, own: Claim, runs_s: float, begins_s: float) -> float:
    """When the attempt itself leaves, by its heartbeats; its machine's clock is off by days and it does not ask it."""
    machine = MACHINE.model_copy(update={"max_usd": life.max_usd})
    spec = Spec(
        revision=1,
        recipe={},
        model=SpecModel(name="m"),
        machine=machine,
        fingerprint="f",
        started_by="s",
        created_at=0.0,
    )
    now = [life.draw.uniform(0, 1e6)]
    budget = Budget(open_bucket("file:///nowhere"), own.number, spec, lambda what: None, now=lambda: now[0])
    try:
        budget.refuse_spent(claims)
    except NeedsPerson:
        return begins_s + LEAVE_S
    at_s = begins_s
    while True:
        if life.draw.random() < 0.7:  # the bucket is heard of
            budget.hear(at_s, claims)
        left_s = budget.left_s()
        if left_s is not None and left_s <= STOP_S + BEAT_S:
            return at_s + max(0.0, left_s - STOP_S) + life.draw.uniform(5.0, LEAVE_S)
        at_s += BEAT_S
        now[0] += BEAT_S


def with_end(claims: Claims, number: int, how: str, ran_from_s: float, at_s: float) -> Claims:
    """As the cloud's times say it, whoever records it."""
    end = SeenEnd(how=how, at_s=at_s, ran_from_s=ran_from_s, durable_step=number)  # type: ignore[arg-type]
    attempts = [one.model_copy(update={"ended": end}) if one.number == number else one for one in claims.attempts]
    return claims.model_copy(update={"attempts": tuple(attempts)})


@pytest.mark.parametrize("attempt", ["well", "hangs"])
@pytest.mark.parametrize("seed", range(LIVES))
def test_with_the_watchdog_dead_the_platform_ends_the_vm_and_the_attempt_goes_before(seed: int, attempt: str) -> None:
    life = Life(random.Random(seed))
    own = vm_claim(1, life.price(), NOW_S)
    claims = Claims(attempts=(own,))
    machine = MACHINE.model_copy(update={"max_usd": life.max_usd})
    longest_s = longest_run_s(machine, claims, own, POLICY)
    runs_s = NOW_S + life.draw.uniform(10, 90)
    over_s = runs_s + longest_s
    if attempt == "well":
        over_s = min(over_s, leaves_at_s(life, claims, own, runs_s, runs_s + life.draw.uniform(20, 60)))
        assert over_s <= runs_s + longest_s
    assert own.usd_per_hour is not None
    life.pay(own.usd_per_hour, over_s - runs_s)
    life.check()


@pytest.mark.parametrize("seed", range(LIVES))
def test_with_the_watchdog_wrong_the_request_and_the_attempt_hold_the_cap(seed: int) -> None:
    """It stops nothing, asks for VM after VM, and wants each to run for months."""
    life = Life(random.Random(seed))
    machine = MACHINE.model_copy(update={"max_usd": life.max_usd})
    claims, now_s = Claims(), NOW_S
    for number in range(1, 200):
        own = vm_claim(number, life.price(), now_s)
        claims = claims.model_copy(update={"attempts": (*claims.attempts, own)})
        try:
            longest_s = within_cap(machine, claims, own, LONGEST_RUN_S)
        except NeedsPerson:
            break
        runs_s = now_s + life.draw.uniform(10, 90)
        platform_s = runs_s + longest_s
        preempted_s = runs_s + life.draw.expovariate(1 / 3000)
        begins_s = runs_s + life.draw.uniform(20, 1200)
        left_s = leaves_at_s(life, claims, own, runs_s, begins_s)
        over_s = min(platform_s, preempted_s, left_s)
        assert own.usd_per_hour is not None
        life.pay(own.usd_per_hour, over_s - runs_s)
        claims = with_end(claims, number, "preempted", runs_s, over_s)
        now_s = over_s + life.draw.uniform(1, 60)
    else:
        pytest.fail("it went on for ever")
    life.check()


@pytest.mark.parametrize("skew_s", [-86_400.0, -3600.0, 0.0, 3600.0, 86_400.0])
@pytest.mark.parametrize("seed", range(LIVES // 4))
def test_with_clocks_skewed_the_watchdog_still_stops_it_in_time(seed: int, skew_s: float) -> None:
    """Whoever watches looks at the bucket's clock; its own, the laptop's and the VM's are off by up to a day."""
    life = Life(random.Random(seed))
    wish = wanted(max_usd=life.max_usd)
    price = life.price()
    wish = replace(wish, spot=(offer(usd=price),))
    own = vm_claim(1, price, NOW_S)
    claims, claims_at_s = Claims(attempts=(own,)), NOW_S
    runs_s = NOW_S + 30
    assert wish.machine is not None
    platform_s = runs_s + longest_run_s(wish.machine, claims, own, POLICY)
    bucket_s = NOW_S + 40
    machine_s = [bucket_s + skew_s]
    clock = Clock(lambda: machine_s[0])
    clock.learn(machine_s[0], bucket_s)  # by the write of looked.json
    while True:
        bucket_s += LOOK_S
        machine_s[0] += LOOK_S
        if bucket_s >= platform_s:
            over_s = platform_s
            break
        plan = decide(wish, looked(clock.time_s(), claims, claims_at_s, runs_s), POLICY)
        if plan.after.want != claims.want:
            claims_at_s = bucket_s
        claims = plan.after
        if claims.want == "stop":  # heard with a heartbeat
            over_s = min(platform_s, bucket_s + BEAT_S + life.draw.uniform(5, POLICY.stop_s / 2))
            break
    life.pay(price, over_s - runs_s)
    life.check()
    if life.max_usd / price * 3600 > 2 * POLICY.stop_s + 60:
        assert claims.want == "stop", "the platform had to end it"


def looked(now_s: float, claims: Claims, claims_at_s: float, runs_s: float) -> Observed:
    """All is well with the run's VM."""
    vm = Vm(
        name=vm_name(URI, 1),
        zone="us-central1-a",
        status=VmStatus.RUNNING,
        instance_id="1",
        machine_type="g2-standard-4",
        spot=True,
        labels=run_labels(URI, 1),
        created_s=runs_s - 20,
        started_s=runs_s,
    )
    ref = CheckpointRef(folder="c", step=1, attempt=1, manifest_crc32c=0)
    head = Head(attempt=1, incarnation=0, status=Status.RUNNING, checkpoint=ref, kept=(ref,), write_id="w")
    return Observed(now_s, claims, claims_at_s, (vm,), head=Dated(head, now_s), heartbeat_s=now_s - 1)


def test_the_last_look_at_the_cap_is_where_the_request_is_made() -> None:
    own = vm_claim(1, 3.6, NOW_S)
    machine = MACHINE.model_copy(update={"max_usd": 1.0})
    assert within_cap(machine, Claims(attempts=(own,)), own, LONGEST_RUN_S) == 1000
    assert within_cap(machine, Claims(attempts=(own,)), own, 500) == 500
    spent = with_end(Claims(attempts=(own, vm_claim(2, 3.6, NOW_S))), 1, "preempted", NOW_S - 930, NOW_S)
    with pytest.raises(NeedsPerson, match=r"the cap of \$1.00 is reached: attempt 2 gets no VM"):
        within_cap(machine, spent, spent.attempts[1], LONGEST_RUN_S)
