"""What is to be done for a run's VMs: a pure function of what is wanted, what was seen and the time.

It knows no yesterday: all memory is in control/claims.json. So it may be asked twice, by several watchdogs at once,
after any of them was killed anywhere: a plan starts from what is, and doing again what was done changes nothing.

1. An open claim is finished by anyone, until its grace has passed; nobody opens another meanwhile.
2. How it ended is recorded before anything else follows from it.
3. The next number is claimed before its VM is asked for.
4. VMs of claims that are over, and VMs that no claim knows, are deleted.
"""

from dataclasses import dataclass, field, replace

from infra.cloud.types import Vm, VmStatus
from infra.naming import request_id, vm_name
from infra.plan import Offer
from infra.watch.ends import Found, end_of, judge
from infra.watch.observed import Blocked, Observed, Policy, Unknown, Wanted
from infra.watch.placing import failures_in_a_row, on_demand_due, place
from infra.watch.spending import hourly_usd, left_usd, longest_run_s
from job.run.claims import Claim, Claims, Want
from job.run.head import Status

LEFT_AT_ONCE = frozenset({"hung", "boot failure"})
"""Ends after which nothing is waited for: the VM would not go by itself."""


@dataclass(frozen=True)
class Ask:
    """The insert of an open claim's VM; the same one however often."""

    claim: Claim
    max_run_s: int
    """What is left of the cap pays for so long: then the platform itself ends it."""


@dataclass(frozen=True)
class Delete:
    """The end of a VM that no open claim stands for."""

    vm: Vm
    why: str


@dataclass(frozen=True)
class Stop:
    """The power button of a VM that makes way for another: it saves what it has."""

    vm: Vm
    why: str


@dataclass(frozen=True)
class Plan:
    """What to do, in this order: claims are written first, by compare-and-swap."""

    before: Claims
    """That it was decided on: where others have written since, nothing of it is done."""
    after: Claims
    asks: tuple[Ask, ...] = ()
    stops: tuple[Stop, ...] = ()
    deletes: tuple[Delete, ...] = ()
    note: str = ""
    """For people: what is waited for."""
    next_try_s: float | None = None
    blocked: tuple[Blocked, ...] = field(default_factory=tuple)

    @property
    def rewrites(self) -> bool:
        """Whether claims.json changes."""
        return self.before != self.after


def decide(wanted: Wanted, seen: Observed, policy: Policy | None = None) -> Plan:
    """The plan. Nothing but leftovers for a run of processes, and while a person's process has it."""
    policy = policy or Policy()
    claims = _superseded(seen)
    asks: tuple[Ask, ...] = ()
    note, next_try_s, blocked = "", None, ()  # type: str, float | None, tuple[Blocked, ...]
    if wanted.machine is not None:
        newest = claims.newest
        if newest is not None and newest.kind == "vm" and newest.ended is None:
            claims, asks, note = _tend(wanted, seen, claims, newest, policy)
            newest = claims.newest
        if newest is not None and newest.ended is not None:
            claims, asks, note, next_try_s, blocked = _go_on(wanted, replace(seen, claims=claims), policy)
    stops, deletes = _leftovers(seen, claims, policy)
    return Plan(seen.claims, claims, asks, stops, deletes, note, next_try_s, blocked)


def _tend(
    wanted: Wanted, seen: Observed, claims: Claims, claim: Claim, policy: Policy
) -> tuple[Claims, tuple[Ask, ...], str]:
    """The open claim's VM: is it over, silent, too dear, to be asked for?"""
    assert wanted.machine is not None
    vm = seen.vm_of(claim)
    if isinstance(vm, Vm):
        claim = claim.model_copy(update={"instance_id": vm.instance_id})
    found = judge(claim, seen, policy, wanted=claims.want == "run")
    if found.end is None and claims.want != "run":
        found = _unwanted(wanted, claim, seen, policy, found)
    if found.end is None and claims.want == "run":
        claims = _within_cap(wanted, claims, claim, seen, policy)
        found = _way_back_to_spot(wanted, claim, seen, vm, policy) or found
    if found.end is not None:
        claim = claim.model_copy(update={"ended": found.end, "doubted_at_s": None})
    elif found.doubt is not None:
        since_s = (claim.doubted_at_s or seen.now_s) if found.doubt else None
        claim = claim.model_copy(update={"doubted_at_s": since_s})
    claims = _with(claims, claim)
    if not found.ask or claims.want != "run":
        return claims, (), ""
    seconds = longest_run_s(wanted.machine, claims, claim, policy)
    return claims, (Ask(claim, seconds),), f"asking for {claim.vm} in {claim.zone}"


def _go_on(
    wanted: Wanted, seen: Observed, policy: Policy
) -> tuple[Claims, tuple[Ask, ...], str, float | None, tuple[Blocked, ...]]:
    """No claim is open: what comes after the last end. A final state is final."""
    claims = seen.claims
    nothing: tuple[Blocked, ...] = ()
    head = seen.head_record()
    if claims.want != "run" or isinstance(seen.head, Unknown):
        return claims, (), "", None, nothing
    if head is not None and head.status is Status.FINISHED:
        return claims, (), "finished", None, nothing
    final = _verdict(seen, policy)
    if final is not None:
        return _wanting(claims, *final), (), final[1], None, nothing
    assert wanted.machine is not None
    where = place(wanted, seen, policy)
    if where.hopeless:
        return _wanting(claims, "failed", where.why), (), where.why, None, where.blocked
    if where.offer is None:
        return claims, (), where.why, where.next_try_s, where.blocked
    offer = where.offer
    if left_usd(wanted.machine, seen, policy) < hourly_usd(offer, policy) * policy.shortest_s / 3600:
        reason = _cap_reason(wanted, seen, policy)
        return _wanting(claims, "stop", reason), (), reason, None, nothing
    claim = _claim(wanted, claims, offer, seen.now_s, policy)
    claims = claims.model_copy(update={"attempts": (*claims.attempts, claim)})
    seconds = longest_run_s(wanted.machine, claims, claim, policy)
    return claims, (Ask(claim, seconds),), f"asking for {claim.vm} in {claim.zone}", None, nothing


def _verdict(seen: Observed, policy: Policy) -> tuple[Want, str] | None:
    """What the last ends mean for the run: (want, reason), None where it goes on."""
    newest = seen.claims.newest
    assert newest is not None
    assert newest.ended is not None
    end = newest.ended
    if end.at_s < seen.claims.resumed_at_s:
        return None
    if end.how == "deleted":
        return "stop", f"attempt {newest.number}'s VM was ended from outside: {end.detail}"
    if end.how == "refused":
        code = "" if end.exit_code is None else f" (exit {end.exit_code})"
        return "failed", f"attempt {newest.number} needs a person{code}: {end.detail or end.how}"
    failures = failures_in_a_row(seen)
    if len(failures) >= policy.failures:
        hows = ", ".join(dict.fromkeys(failure.how for failure in failures))
        step = "any step" if end.durable_step is None else f"a step after {end.durable_step}"
        return "failed", f"{len(failures)} attempts in a row ended without {step}: {hows}"
    return None


def _within_cap(wanted: Wanted, claims: Claims, claim: Claim, seen: Observed, policy: Policy) -> Claims:
    """In time for the attempt to save what it has before the cap is reached."""
    assert wanted.machine is not None
    price = claim.usd_per_hour or 0.0
    if left_usd(wanted.machine, seen, policy) > price * policy.stop_s / 3600:
        return claims
    return _wanting(claims, "stop", _cap_reason(wanted, seen, policy))


def _unwanted(wanted: Wanted, claim: Claim, seen: Observed, policy: Policy, found: Found) -> Found:
    """A run that is stopped: its attempt hears of it with a heartbeat, saves and goes; not for ever."""
    assert wanted.machine is not None
    vm = seen.vm_of(claim)
    if not isinstance(vm, Vm):
        return found
    spent = left_usd(wanted.machine, seen, policy) <= 0
    late = seen.now_s - seen.claims_at_s > policy.stop_s
    head = seen.head_record()
    released = head is not None and head.attempt == claim.number and head.status is Status.RELEASED
    if isinstance(seen.head, Unknown) or not (spent or late or released or vm.status is VmStatus.STARTING):
        return found
    return Found(end=end_of(claim, seen, vm, "capped" if spent else "stopped", seen.claims.reason or ""))


def _way_back_to_spot(wanted: Wanted, claim: Claim, seen: Observed, vm: object, policy: Policy) -> Found | None:
    """An on-demand VM that was taken for want of a spot one makes way after some hours."""
    machine = wanted.machine
    assert machine is not None
    if not machine.spot or claim.spot is not False or not isinstance(vm, Vm):
        return None
    if vm.status is not VmStatus.RUNNING or isinstance(seen.head, Unknown) or not isinstance(seen.heartbeat_s, float):
        return None
    if seen.now_s - (vm.started_s or vm.created_s) < policy.spot_again_s:
        return None
    if machine.on_demand == "deadline" and on_demand_due(wanted, seen, policy):
        return None
    return Found(end=end_of(claim, seen, vm, "given back", "spot VMs are tried again"))


def _superseded(seen: Observed) -> Claims:
    """Open VM claims below the newest are over: whoever claims after them has the run."""
    claims = seen.claims
    of_others = replace(seen, operations=Unknown("not asked for"), heartbeat_s=None)  # those are of the newest claim
    for claim in claims.attempts[:-1]:
        vm = seen.vm_of(claim)
        if claim.kind == "vm" and claim.ended is None and not isinstance(vm, Unknown):
            words = f"attempt {claims.attempts[-1].number} was claimed"
            claims = _with(claims, claim.model_copy(update={"ended": end_of(claim, of_others, vm, "fenced", words)}))
    return claims


def _leftovers(seen: Observed, claims: Claims, policy: Policy) -> tuple[tuple[Stop, ...], tuple[Delete, ...]]:
    """VMs that no open claim stands for. Judged by what the claims are going to be: an end goes before a deletion."""
    if isinstance(seen.vms, Unknown):
        return (), ()
    stops: list[Stop] = []
    deletes: list[Delete] = []
    known = {claim.vm: claim for claim in claims.attempts}
    for vm in seen.vms:
        claim = known.get(vm.name)
        if claim is None or claim.zone != vm.zone:
            if seen.now_s - vm.created_s > policy.superfluous_s:
                deletes.append(Delete(vm, "no claim knows it"))
            continue
        if claim.ended is None:
            continue
        past_s = seen.now_s - claim.ended.at_s
        if vm.status is VmStatus.STOPPED or claim.ended.how in LEFT_AT_ONCE or past_s > policy.leave_s:
            deletes.append(Delete(vm, f"attempt {claim.number} is over: {claim.ended.how}"))
        elif vm.status is VmStatus.RUNNING and claim.ended.how == "given back":
            stops.append(Stop(vm, claim.ended.detail))
    return tuple(stops), tuple(deletes)


def _claim(wanted: Wanted, claims: Claims, offer: Offer, now_s: float, policy: Policy) -> Claim:
    assert claims.newest is not None
    number = claims.newest.number + 1
    return Claim(
        number=number,
        kind="vm",
        claimed_at_s=now_s,
        zone=offer.zone,
        vm=vm_name(wanted.run_uri, number),
        request_id=request_id(wanted.run_uri, number, now_s),
        machine_type=offer.machine_type,
        spot=offer.spot,
        usd_per_hour=hourly_usd(offer, policy),
    )


def _wanting(claims: Claims, want: Want, reason: str) -> Claims:
    return claims.model_copy(update={"want": want, "reason": reason[:200]})


def _with(claims: Claims, changed: Claim) -> Claims:
    attempts = tuple(changed if claim.number == changed.number else claim for claim in claims.attempts)
    return claims.model_copy(update={"attempts": attempts})


def _cap_reason(wanted: Wanted, seen: Observed, policy: Policy) -> str:
    assert wanted.machine is not None
    cap = wanted.machine.max_usd
    spent = cap - left_usd(wanted.machine, seen, policy)
    return f"the cap of ${cap:.2f} is reached (${spent:.2f} spent): baton resume --max-usd allows more"
