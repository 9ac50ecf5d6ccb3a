"""Random histories: watchdogs of the production code in a world that lies to them, and the laws that hold all the same.

A seed is a history. Two watchdogs look at random moments, by clocks that are wrong by minutes; each may die or fall
asleep for an hour at any call. VMs are preempted, crash, hang; zones have no capacity; people stop, resume, delete.
Then peace: one honest watchdog, and everything has to come to its end.
"""

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from unittest import mock

import infra.watchdog
from infra.cloud.types import OperationKind
from infra.naming import request_id, vm_name
from infra.plan import offers
from infra.watch.observed import Policy
from infra.watchdog import Watchdog
from job.run.claims import Claim, Claims
from job.run.head import Status, Waiting
from job.run.layout import CLAIMS, HEAD, exit_name, spec_name
from job.run.spec import Machine as MachineSpec
from job.run.spec import Spec, SpecModel

from .lies import Died, Lies, LyingBucket, LyingCloud, Senses
from .truth import BEGAN_S, LONGEST_BOOT_S, Broken, Machine, Truth

URI = LyingBucket.uri
ZONES = ("us-central1-a", "us-central1-b", "us-central1-c", "us-east4-a", "us-east4-c")
IMAGE = f"us-docker.pkg.dev/p/r/baton@sha256:{'a' * 64}"
ACTIVE_S = (1800.0, 10_800.0)
PEACE_S = 8 * 3600.0
TICK_S = (10.0, 90.0)
POLICY = Policy()
SUPERFLUOUS_S = LONGEST_BOOT_S + 120.0
"""One boot, and the way off."""


class History:
    """One life of a run."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.truth = Truth(self.rng, self._fate)
        self.ticks = 0
        self.max_usd = self.rng.choice((0.3, 1.0, 20.0))
        self.harm = self.rng.choice((0.0, 0.3, 0.8))
        """How often a VM fails by itself."""
        self.preempted = self.rng.choice((0.1, 0.5, 0.9))
        self.peace = False
        self.final: str | None = None
        self.dead: Counter[str] = Counter()
        self._watchdogs: list[Watchdog | None] = [None, None]
        self._lies = [self._draw_lies(), self._draw_lies()]
        self._skew_s = [self.rng.uniform(-300, 300) for _ in range(3)]
        self._awake = [True, True]
        self._tick_began: list[float] = []

    def live(self) -> "History":
        """The whole of it. Raises Broken."""
        truth, rng = self.truth, self.rng
        self._launch()
        active_s = rng.uniform(*ACTIVE_S)
        for _ in range(rng.randrange(4)):
            truth.at(rng.uniform(0, active_s), self._person)
        for _ in range(rng.randrange(3)):
            truth.at(rng.uniform(0, active_s), self._outage)
        for number in (0, 1):
            self._schedule(number)
        truth.advance(BEGAN_S + active_s)
        self._in_peace()
        return self

    # --- what happens --------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        """Spec and claim are there; the launch may have died before it asked for the VM."""
        rng, truth = self.rng, self.truth
        machine = MachineSpec(
            gpu="l4",
            project="p",
            zones=ZONES[: rng.choice((1, 3, 5))],
            image=IMAGE,
            boot_image="deeplearning-platform-release/common-cu129",
            boot_disk_gb=100,
            service_account="a",
            max_usd=self.max_usd,
            on_demand=rng.choice(("never", "never", "after", "deadline")),
            on_demand_after_s=600.0,
            deadline_s=BEGAN_S + rng.choice((3600.0, 20_000.0)),
        )
        spec = Spec(
            revision=1,
            recipe={"train": {"max_steps": 40}},
            model=SpecModel(name="m"),
            machine=machine,
            fingerprint="f",
            started_by="s",
            created_at=BEGAN_S,
        )
        truth.put(spec_name(1), spec.to_bytes())
        offer = offers("l4", True, machine.zones, (), "us-central1", machine_types=("g2-standard-4",))[0]
        claim = Claim(
            number=1,
            kind="vm",
            claimed_at_s=BEGAN_S,
            zone=offer.zone,
            vm=vm_name(URI, 1),
            request_id=request_id(URI, 1, BEGAN_S),
            machine_type=offer.machine_type,
            spot=True,
            usd_per_hour=offer.usd_per_hour,
        )
        truth.put(CLAIMS, Claims(attempts=(claim,), write_id="launch").to_bytes())

    def _fate(self, truth: Truth, machine: Machine) -> None:
        """What becomes of a VM that has just started."""
        rng = self.rng
        truth.boot(machine)
        if self.peace:
            return
        at_s = rng.choice((rng.uniform(0, 120), rng.expovariate(1 / 1200)))
        if rng.random() < self.preempted:
            truth.at(at_s, lambda: self._preempt(machine))
        elif rng.random() < self.harm:
            harm = rng.choice(
                ("crash", "oom", "hang", "hang", "sick", "boot", "wait", "76", "hostile", "host", "needs", "off")
            )
            truth.at(at_s, lambda: self._harm(machine, harm))

    def _preempt(self, machine: Machine) -> None:
        if machine.state != "running":
            return
        machine.zombie = self.rng.random() < 0.1
        if self.rng.random() < 0.3 and machine.works:  # with notice: it leaves before the power button
            machine.doomed = True
            self.truth.leave(machine, 75, Status.RELEASED, off=self.rng.random() < 0.5)
        self.truth.power_off(machine, OperationKind.PREEMPTED, "system", lag_s=self.rng.choice((0.0, 0.0, 10.0, 45.0)))

    def _harm(self, machine: Machine, harm: str) -> None:
        truth, rng = self.truth, self.rng
        if machine.state != "running":
            return
        machine.doomed = True
        match harm:
            case "crash":
                truth.leave(machine, rng.choice((1, 139)))
            case "oom":
                truth.leave(machine, 137, reason="out of memory")
            case "hang":
                truth.silence(machine)
            case "sick":
                truth.leave(machine, 1, reason="sick gpu")
            case "boot":
                truth.leave(machine, 1, reason=rng.choice(("pull", "boot")))
            case "wait":
                until_s = truth.now_s + rng.choice((300.0, 1e9))
                truth.leave(machine, 75, Status.WAITING, waiting=Waiting(until_s=until_s, why="the judge is down"))
            case "76":
                truth.leave(machine, 76)
            case "needs":
                truth.leave(machine, 3)
            case "host":
                truth.power_off(machine, OperationKind.HOST_ERROR, "system", 0.0)
            case "off":  # powered off from inside without a word
                truth.silence(machine)
                truth._switch_off(machine)
            case "hostile":
                self._nonsense(machine)

    def _nonsense(self, machine: Machine) -> None:
        """A VM that writes what it likes where it may."""
        truth, rng = self.truth, self.rng
        truth.tell(f"{machine.number} is hostile")
        for name in (HEAD, exit_name(machine.number)):
            if rng.random() < 0.5 and (
                name != HEAD or (head := truth.head()) is None or head.attempt <= machine.number
            ):
                data = rng.choice((b"", b"[]", b"{" * 1000, b'{"exit_code": 75, "at_s": 1e300}', b"\xff" * 2_000_000))
                truth.put(name, data)
        truth.silence(machine)

    def _person(self) -> None:
        """stop, resume, a drill, a VM deleted by hand."""
        truth, rng = self.truth, self.rng
        claims = truth.claims()
        claim = truth.open_claim()
        what = rng.choice(("stop", "resume", "drill", "delete"))
        if what == "stop" and claims.want == "run":
            self._write_claims(claims.model_copy(update={"want": "stop", "reason": "by a person"}), what)
        elif what == "resume" and claims.want != "run":
            since_s = max([truth.now_s, *(one.ended.at_s + 0.001 for one in claims.attempts if one.ended)])
            self.final = None
            again = claims.model_copy(update={"want": "run", "reason": None, "resumed_at_s": since_s})
            self._write_claims(again, what)
        elif claim is not None and what in ("drill", "delete"):
            machine = self._machine(claim.number)
            if machine is None or machine.state != "running":
                return
            if what == "drill":
                drilled = claim.model_copy(update={"drill": "me"})
                attempts = (*claims.attempts[:-1], drilled)
                self._write_claims(claims.model_copy(update={"attempts": attempts}), what)
            truth.power_off(machine, OperationKind.DELETE if what == "delete" else OperationKind.STOP, "alice@x")

    def _write_claims(self, claims: Claims, who: str) -> None:
        self.truth.tell(f"a person: {who}")
        self._check_claims(self.truth.claims(), claims, watchdog=False)
        self.truth.put(CLAIMS, claims.model_copy(update={"write_id": f"p{self.truth.now_s}"}).to_bytes())

    def _outage(self) -> None:
        truth, rng = self.truth, self.rng
        until_s = truth.now_s + rng.uniform(60, 1500)
        match rng.choice(("cloud", "bucket", "full", "full", "quota")):
            case "cloud":
                truth.cloud_down_s = until_s
            case "bucket":
                truth.bucket_down_s = until_s
                for machine in truth.machines:  # their heartbeats stop, and come again
                    if machine.works:
                        truth._last_beat(machine)
                        machine.beats_from_s = until_s
            case "full":
                for zone in rng.sample(ZONES, rng.randrange(1, len(ZONES) + 1)):
                    truth.full[zone] = until_s + rng.choice((0.0, 3600.0))
            case "quota":
                truth.no_quota[rng.choice(("us-central1", "us-east4"))] = until_s

    # --- watchdogs -----------------------------------------------------------------------------------------------

    def _draw_lies(self) -> Lies:
        rng = self.rng
        return Lies(
            fail=rng.choice((0.0, 0.02, 0.2)),
            late=rng.choice((0.0, 0.1, 0.4)),
            lose=rng.choice((0.0, 0.05, 0.2)),
            die=rng.choice((0.0, 0.01)),
            sleep=rng.choice((0.0, 0.003)),
        )

    def _schedule(self, number: int) -> None:
        self.truth.at(self.rng.uniform(*TICK_S), lambda: self._turn(number))

    def _turn(self, number: int) -> None:
        if not self.peace:
            self._schedule(number)
        if not self._awake[number]:  # it sleeps inside a call that has not returned
            return
        self._awake[number] = False
        try:
            if self._watchdogs[number] is None:
                self._watchdogs[number] = self._new_watchdog(number, self._lies[number])
            self._tick(self._watchdogs[number])
        except Died:
            self._watchdogs[number] = None
        finally:
            self._awake[number] = True

    def _tick(self, watchdog: Watchdog | None) -> None:
        assert watchdog is not None
        self._tick_began.append(self.truth.now_s)
        self.ticks += 1
        try:
            watchdog.tick()
        finally:
            self._tick_began.pop()
        bugs = [run.trouble for run in watchdog.watched.values() if "Traceback" in run.trouble]
        if bugs:
            raise self._broken(f"a bug: {bugs[0]}")

    def _new_watchdog(self, number: int, lies: Lies) -> Watchdog:
        senses = Senses(self.truth, self.rng, lies, lambda seconds: self.truth.advance(self.truth.now_s + seconds))
        bucket = LyingBucket(senses, on_write=self._on_write)
        cloud = LyingCloud(senses, on_end=self._on_end)
        skew_s = self._skew_s[number]
        return Watchdog(
            lambda: (URI,),
            open_bucket=lambda uri: bucket,
            open_cloud=lambda project: cloud,
            watcher=f"w{number}",
            policy=POLICY,
            now=lambda: self.truth.now_s + skew_s,
        )

    # --- laws ----------------------------------------------------------------------------------------------------

    def _on_write(self, name: str, before: bytes, after: bytes) -> None:
        if name == CLAIMS:
            old = Claims.model_validate_json(before) if before else Claims()
            self._check_claims(old, Claims.model_validate_json(after), watchdog=True)

    def _check_claims(self, old: Claims, new: Claims, *, watchdog: bool) -> None:
        """What may become of claims."""
        if [claim.number for claim in new.attempts] != list(range(1, len(new.attempts) + 1)):
            raise self._broken("claims are not numbered 1, 2, 3...")
        if len([claim for claim in new.attempts if claim.ended is None]) > 1:
            raise self._broken("two owners: two claims are open")
        for was, now in zip(old.attempts, new.attempts, strict=False):
            if was.ended is not None and was != now:
                raise self._broken(f"the end of {was.number} was changed")
            if was.ended is None and now.ended is not None:
                self.truth.tell(f"{now.number} is over, says a watchdog: {now.ended.how} {now.ended.detail[:60]}")
                self.dead[now.ended.how] += 1
                if watchdog:
                    self._given_up(now, new)
        if not watchdog:
            return
        if old.want != "run" and new.want == "run":
            raise self._broken("a watchdog let a stopped run go on")
        if len(new.attempts) > len(old.attempts):
            self._claimed(old, new)
        if old.want == "run" and new.want != "run":
            self.truth.tell(f"the run is to {new.want}: {new.reason}")

    def _claimed(self, old: Claims, new: Claims) -> None:
        claim = new.attempts[-1]
        self.truth.tell(f"{claim.number} is claimed in {claim.zone} ({'spot' if claim.spot else 'on demand'})")
        if len(new.attempts) != len(old.attempts) + 1 or old.want != "run" or new.want != "run":
            raise self._broken("a claim was opened that nobody wants")
        began_s = self._tick_began[-1]
        if self.truth.finished_at_s is not None and self.truth.finished_at_s < began_s:
            raise self._broken("a finished run was claimed again")
        if not claim.spot and self.truth_spec().on_demand == "never":
            raise self._broken("an on-demand VM was claimed")
        if claim.zone not in self.truth_spec().zones:
            raise self._broken("a VM was claimed where none may be")

    def truth_spec(self) -> MachineSpec:
        machine = Spec.model_validate_json(self.truth.store[spec_name(1)].data).machine
        assert machine is not None
        return machine

    def _given_up(self, claim: Claim, new: Claims) -> None:
        """A VM that is well is given up for a reason only."""
        assert claim.ended is not None
        machine = self._machine(claim.number)
        if machine is None or not self._is_well(machine) or claim.ended.how == "given back":
            return
        if new.want != "run":
            return
        raise self._broken(f"{claim.number} was well, and given up as {claim.ended.how}: {claim.ended.detail}")

    def _is_well(self, machine: Machine) -> bool:
        """It runs, and does what it should, or will before long."""
        if machine.state not in ("creating", "running") or machine.doomed:
            return False
        head = self.truth.head()
        if machine.works and (head is None or head.attempt != machine.number):
            return False  # fenced; it notices at its next step
        return self.truth.finished_at_s is None

    def _on_end(self, what: str, name: str) -> None:
        """A watchdog ends a VM."""
        self.truth.tell(f"a watchdog asks: {what} {name[-5:]}")
        for machine in self.truth.machines:
            if machine.order.name != name or not self._is_well(machine):
                continue
            claims = self.truth.claims()
            claim = next((one for one in claims.attempts if one.vm == name), None)
            if claim is not None and claim.ended is None:
                raise self._broken(f"{what} of {claim.number}, which is well and whose claim is open")

    def _machine(self, number: int) -> Machine | None:
        found = [machine for machine in self.truth.machines if machine.number == number]
        return found[-1] if found else None

    def _in_peace(self) -> None:
        """Nothing goes wrong any more: one honest watchdog, until everything is over."""
        truth = self.truth
        self.peace = True
        truth.full.clear()
        truth.no_quota.clear()
        truth.cloud_down_s = truth.bucket_down_s = -1.0
        truth.tell("peace")
        watchdog = self._new_watchdog(2, Lies())
        until_s = truth.now_s + PEACE_S
        while truth.now_s < until_s:
            truth.advance(truth.now_s + 30.0)
            self._tick(watchdog)
            if watchdog.is_over() and not self._left():
                break
        self._check_end()

    def _left(self) -> list[Machine]:
        return [machine for machine in self.truth.machines if machine.vm() is not None]

    def _check_end(self) -> None:
        truth, claims = self.truth, self.truth.claims()
        if left := self._left():
            raise self._broken(f"a VM is left: {left[0].number} {left[0].state}")
        if any(claim.ended is None for claim in claims.attempts):
            raise self._broken("a claim is left open")
        if truth.finished_at_s is None and claims.want == "run":
            raise self._broken("the run is stuck")
        self._check_one_each()
        self._check_superfluous(claims)
        self._check_cap(claims)

    def _check_one_each(self) -> None:
        """No claim has two VMs at once. A watchdog that wakes after an hour may ask again for what is long over."""
        for machine in self.truth.machines:
            for other in self.truth.machines:
                again = other.number == machine.number and other.asked_s > machine.asked_s
                if again and (machine.over_s is None or machine.over_s > other.asked_s):
                    raise self._broken(f"claim {machine.number} has two VMs")

    def _check_superfluous(self, claims: Claims) -> None:
        """A VM that no claim stands for any more is there for one boot."""
        for machine in self.truth.machines:
            claim = claims.attempts[machine.number - 1]
            assert claim.ended is not None
            if machine.started_s is None or machine.over_s is None or machine.doomed_by_itself:
                continue
            alone_s = machine.over_s - max(machine.started_s, claim.ended.at_s)
            if alone_s > SUPERFLUOUS_S + TICK_S[1]:
                raise self._broken(f"{machine.number} was superfluous for {alone_s:.0f} s")

    def _check_cap(self, claims: Claims) -> None:
        """By the cloud's times, not by what claims say. A superfluous VM's boot is beside it: that law is its own."""
        cost_usd = superfluous_usd = dearest = 0.0
        for machine in self.truth.machines:
            if machine.started_s is None:
                continue
            claim = claims.attempts[machine.number - 1]
            assert claim.ended is not None
            assert claim.usd_per_hour is not None
            over_s = machine.over_s if machine.over_s is not None else self.truth.now_s
            counted_s = min(over_s, claim.ended.at_s + 60) if claim.ended.ran_from_s is not None else machine.started_s
            cost_usd += claim.usd_per_hour * max(0.0, counted_s - machine.started_s) / 3600
            superfluous_usd += claim.usd_per_hour * max(0.0, over_s - counted_s) / 3600
            dearest = max(dearest, claim.usd_per_hour)
        if cost_usd > self.max_usd + dearest * TICK_S[1] / 3600:
            raise self._broken(f"${cost_usd:.3f} spent, the cap is ${self.max_usd:.2f}")

    def _broken(self, law: str) -> Broken:
        return Broken("\n".join([law, *self.truth.story[-80:]]))


@contextlib.contextmanager
def sequentially() -> Iterator[None]:
    """Threads and real waiting are taken out: a history is a function of its seed."""

    def in_turn(jobs: Iterator[Callable[[], object]], streams: int) -> list[object]:
        return [job() for job in jobs]

    with (
        mock.patch.object(infra.watchdog, "in_parallel", in_turn),
        mock.patch("tenacity.nap.time.sleep"),
        mock.patch("infra.watch.orders.boot_attributes", return_value={}),  # what it boots is not looked at here
    ):
        yield
