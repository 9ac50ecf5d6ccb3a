"""How an attempt's VM ended, told apart from outside. Pure: everything is in what was observed."""

from dataclasses import dataclass, replace

from infra.cloud.types import Operation, OperationKind, Trouble, Vm, VmStatus
from infra.watch.observed import Damaged, Dated, Foreign, Observed, Policy, Unknown
from infra.watch.refusals import MOST_WORDS, not_ours, refusal
from job.errors import ExitCode
from job.run.claims import Claim, How, SeenEnd
from job.run.exit import ContainerExit
from job.run.head import Status

_ALIVE = (VmStatus.STARTING, VmStatus.RUNNING)
_BY_CODE: dict[int, How] = {
    ExitCode.USAGE: "refused",
    ExitCode.NEEDS_PERSON: "refused",
    ExitCode.FENCED: "fenced",
    ExitCode.TRANSIENT: "waiting",
}


@dataclass(frozen=True)
class Found:
    """What there is to say of an open claim."""

    end: SeenEnd | None = None
    """It is over."""
    ask: bool = False
    """Nobody has seen an insert: it is asked for (again), with the claim's own request_id."""
    doubt: bool | None = None
    """True: something is missed, look again later. False: there is a sign of life. None: nothing new."""


def judge(claim: Claim, seen: Observed, policy: Policy, *, wanted: bool) -> Found:
    """Whether the newest claim's VM is over, and how; `wanted`: whether the run still is.

    A failed look changes nothing: what it could have said is waited for.
    """
    if isinstance(seen.head, Unknown) or isinstance(seen.exit, Unknown):
        return Found()  # how far it got, or how it ended, would be told wrong
    vm, head = seen.vm_of(claim), seen.head_record()
    seen = seen.with_own_exit(vm)
    if head is not None and head.status is Status.FINISHED:
        return _finished(claim, seen, vm, policy)
    if isinstance(seen.exit, Dated):
        if isinstance(seen.operations, Unknown):
            return Found()
        return Found(end=_by_exit(claim, seen, vm, seen.exit.record, wanted=wanted))
    if isinstance(vm, Unknown):
        return Found()
    if vm is None:
        return _absent(claim, seen, policy, wanted=wanted)
    if vm.status is VmStatus.STARTING:
        return _starting(claim, seen, vm, policy)
    if vm.status is VmStatus.RUNNING:
        return _running(claim, seen, vm, policy)
    return _going(claim, seen, vm, policy, wanted=wanted)


def durable_step(seen: Observed) -> int | None:
    """Head's step; of a head that is damaged, the one that the last end recorded."""
    if isinstance(seen.head, Damaged):
        known = [claim.ended.durable_step for claim in seen.claims.attempts if claim.ended is not None]
        return next((step for step in reversed(known) if step is not None), None)
    head = seen.head_record()
    return None if head is None or head.checkpoint is None else head.checkpoint.step


def ran_from_s(claim: Claim, vm: Vm | Unknown | None, seen: Observed) -> float | None:
    """From when on a claim's VM is paid for: the cloud's time, else the claim's, None where none ever ran."""
    if isinstance(vm, Vm):
        return vm.started_s if vm.started_s is not None else vm.created_s
    if not isinstance(seen.operations, Unknown):
        inserts = [op for op in seen.operations if op.kind is OperationKind.INSERT]
        if any(op.trouble is None for op in inserts):
            return min(op.at_s for op in inserts if op.trouble is None)
        if inserts and not isinstance(seen.heartbeat_s, float):
            return None
    return claim.claimed_at_s if claim.instance_id is not None or isinstance(seen.heartbeat_s, float) else None


def end_of(
    claim: Claim,
    seen: Observed,
    vm: Vm | Unknown | None,
    how: How,
    detail: str = "",
    *,
    at_s: float | None = None,
    exit_code: int | None = None,
    vouched: bool = True,
) -> SeenEnd:
    """An end now, or at the cloud's time of it."""
    began_s = ran_from_s(claim, vm, seen)
    over_s = seen.now_s if at_s is None else min(at_s, seen.now_s)
    return SeenEnd(
        how=how,
        at_s=over_s if began_s is None else max(over_s, began_s),
        exit_code=exit_code,
        detail=detail[:MOST_WORDS],
        durable_step=durable_step(seen),
        ran_from_s=began_s,
        vouched=vouched,
    )


def _finished(claim: Claim, seen: Observed, vm: Vm | Unknown | None, policy: Policy) -> Found:
    """Head says so. The VM gets a moment to ship its last lines and to power off by itself."""
    assert isinstance(seen.head, Dated)
    alive = isinstance(vm, Unknown) or (vm is not None and vm.status in _ALIVE)
    if alive and seen.exit is None and seen.now_s - seen.head.at_s < policy.finish_s:
        return Found()
    return Found(end=end_of(claim, seen, vm, "finished"))


def _by_exit(claim: Claim, seen: Observed, vm: Vm | Unknown | None, last: ContainerExit, *, wanted: bool) -> SeenEnd:
    """The container's last word: nothing starts it again on that VM. What the cloud did explains it better."""
    code = last.exit_code
    cloud = _by_cloud(claim, seen, vm, wanted=wanted)
    if cloud is not None:
        return cloud.model_copy(update={"exit_code": code})
    head = seen.head_record()
    how: How
    vouched = True
    if last.reason == "sick gpu":
        how = "sick gpu"
    elif last.reason in ("pull", "boot"):
        how = "boot failure"
    elif last.reason == "out of memory":
        how = "out of memory"
    elif not wanted and code in (ExitCode.NEEDS_PERSON, ExitCode.PREEMPTED):
        how = "stopped"
    elif code == ExitCode.PREEMPTED:
        if head is not None and head.status is Status.WAITING and head.attempt == claim.number:
            how = "waiting"
        else:
            how, vouched = "preempted", claim.drill is not None
    else:
        how = _BY_CODE.get(code, "crashed")
    detail = f"{last.reason}: {last.detail}" if last.detail and last.reason != "exit" else last.detail
    return end_of(claim, seen, vm, how, detail, exit_code=code, vouched=vouched)


def _by_cloud(claim: Claim, seen: Observed, vm: Vm | Unknown | None, *, wanted: bool) -> SeenEnd | None:
    """What was done to the VM from outside, if anything was."""
    if isinstance(seen.operations, Unknown):
        return None
    done = [op for op in seen.operations if op.trouble is None]
    for op in done:
        if op.kind is OperationKind.PREEMPTED:
            return end_of(claim, seen, vm, "preempted", at_s=op.at_s)
    for op in done:
        if op.kind is OperationKind.HOST_ERROR:
            return end_of(claim, seen, vm, "host error", at_s=op.at_s)
    for op in done:
        if op.kind in (OperationKind.STOP, OperationKind.DELETE):
            return _by_whom(claim, seen, vm, op, wanted=wanted)
    return None


def _by_whom(claim: Claim, seen: Observed, vm: Vm | Unknown | None, op: Operation, *, wanted: bool) -> SeenEnd:
    """A stop or a deletion that no watchdog asked for: those record the end first."""
    words = f"{op.kind.value} by {op.user or 'the platform'}"
    if not wanted:
        return end_of(claim, seen, vm, "stopped", words, at_s=op.at_s)
    if claim.drill is not None:
        return end_of(claim, seen, vm, "preempted", f"a drill by {claim.drill}", at_s=op.at_s)
    return end_of(claim, seen, vm, "preempted" if op.by_platform else "deleted", words, at_s=op.at_s)


def _absent(claim: Claim, seen: Observed, policy: Policy, *, wanted: bool) -> Found:
    """The list does not have it. Only what the cloud did ends it, or a second look that misses it as well."""
    if isinstance(seen.operations, Unknown):
        return Found()
    if isinstance(seen.looked_up, Foreign):
        return _foreign(claim, seen, policy)
    inserts = [op for op in seen.operations if op.kind is OperationKind.INSERT]
    if inserts and inserts[-1].trouble is not None:  # the same request_id would be answered the same
        return Found(end=_refused(claim, seen, inserts[-1].trouble))
    if (end := _by_cloud(claim, seen, None, wanted=wanted)) is not None:
        return Found(end=end)
    if seen.looked_up is not None or isinstance(seen.heartbeat_s, Unknown):
        return Found()  # it is there after all, or nobody knows
    if any(not op.done for op in inserts):
        late = seen.now_s - claim.claimed_at_s > policy.insert_s
        return (
            Found(end=end_of(claim, seen, None, "never created", "the insert does not end"))
            if late
            else Found(doubt=False)
        )
    if claim.instance_id is None and not any(op.trouble is None for op in inserts) and seen.heartbeat_s is None:
        return _never_seen(claim, seen, policy, wanted=wanted)
    if _lives(seen, policy):
        return Found(doubt=False)
    if claim.doubted_at_s is None or seen.now_s - claim.doubted_at_s < policy.doubt_s:
        return Found(doubt=True)
    return Found(end=end_of(claim, seen, None, "preempted", "it is gone; the cloud does not say why", vouched=False))


def _foreign(claim: Claim, seen: Observed, policy: Policy) -> Found:
    """Its name is taken by a VM without our labels. Another VM beside it might be paid for twice: a person looks. One
    that trains is our own all the same, and finishes."""
    if isinstance(seen.heartbeat_s, Unknown):
        return Found()
    if _lives(seen, policy):
        return Found(doubt=False)
    sure = claim.doubted_at_s is not None and seen.now_s - claim.doubted_at_s >= policy.doubt_s
    if seen.heartbeat_s is not None and not sure:
        return Found(doubt=True)
    of_others = replace(seen, operations=Unknown("of another VM"))
    return Found(end=end_of(claim, of_others, None, "refused", not_ours(claim)))


def _refused(claim: Claim, seen: Observed, trouble: Trouble) -> SeenEnd:
    end = refusal(claim, trouble, seen.now_s, durable_step(seen))
    return end or end_of(claim, seen, None, "never created", f"{trouble.code}: {trouble.message}")


def _never_seen(claim: Claim, seen: Observed, policy: Policy, *, wanted: bool) -> Found:
    """Nobody has asked for it, as far as the cloud tells: whoever looks does."""
    if seen.now_s - claim.claimed_at_s > policy.grace_s:
        return Found(end=end_of(claim, seen, None, "never created", "no insert arrived"))
    return Found(ask=wanted, doubt=False)


def _starting(claim: Claim, seen: Observed, vm: Vm, policy: Policy) -> Found:
    if seen.now_s - vm.created_s > policy.insert_s:
        return Found(end=end_of(claim, seen, vm, "boot failure", "the VM does not start"))
    return Found(doubt=False) if claim.doubted_at_s is not None else Found()


def _running(claim: Claim, seen: Observed, vm: Vm, policy: Policy) -> Found:
    """It runs, says the cloud. Without a sign of life for long it is of no use: cut off, or stuck."""
    head = seen.head_record()
    left = head is not None and head.attempt == claim.number and head.status in (Status.RELEASED, Status.WAITING)
    if left and isinstance(seen.head, Dated) and seen.now_s - seen.head.at_s > policy.leave_s:
        return Found(end=_by_word(claim, seen, vm))
    if isinstance(seen.heartbeat_s, Unknown):
        return Found()
    if seen.heartbeat_s is not None:
        silent = seen.now_s - seen.heartbeat_s > policy.silent_s
        how: How = "hung"
        words = f"no sign of life for {seen.now_s - seen.heartbeat_s:.0f} s"
    else:
        began_s = max(vm.started_s or vm.created_s, claim.claimed_at_s)
        silent = seen.now_s - began_s > policy.boot_s
        how, words = "boot failure", "no sign of life since the VM was started"
    if not silent:
        return Found(doubt=False) if claim.doubted_at_s is not None else Found()
    if claim.doubted_at_s is None or seen.now_s - claim.doubted_at_s < policy.doubt_s:
        return Found(doubt=True)
    return Found(end=end_of(claim, seen, vm, how, words))


def _going(claim: Claim, seen: Observed, vm: Vm, policy: Policy, *, wanted: bool) -> Found:
    """It stops, or has stopped: what the cloud did says why, then the VM's own last word, then nobody."""
    if isinstance(seen.operations, Unknown):
        return Found()
    cloud = _by_cloud(claim, seen, vm, wanted=wanted)
    if cloud is not None:
        return Found(end=cloud)
    if vm.status is not VmStatus.STOPPED:
        return Found()
    if not wanted:
        return Found(end=end_of(claim, seen, vm, "stopped", at_s=vm.stopped_s))
    head = seen.head_record()
    if head is not None and head.attempt == claim.number and head.status in (Status.RELEASED, Status.WAITING):
        return Found(end=_by_word(claim, seen, vm))
    if claim.doubted_at_s is None or seen.now_s - claim.doubted_at_s < policy.doubt_s:
        return Found(doubt=True)
    if any(op.kind is OperationKind.GUEST for op in seen.operations):
        return Found(
            end=end_of(claim, seen, vm, "crashed", "powered off from inside without a word", at_s=vm.stopped_s)
        )
    return Found(
        end=end_of(
            claim, seen, vm, "preempted", "it stopped; the cloud does not say why", at_s=vm.stopped_s, vouched=False
        )
    )


def _by_word(claim: Claim, seen: Observed, vm: Vm) -> SeenEnd:
    """Head's: it left in order."""
    head = seen.head_record()
    assert head is not None
    if head.status is Status.WAITING:
        return end_of(claim, seen, vm, "waiting", "" if head.waiting is None else head.waiting.why)
    return end_of(claim, seen, vm, "preempted", "it left in order", vouched=False)


def _lives(seen: Observed, policy: Policy) -> bool:
    return isinstance(seen.heartbeat_s, float) and seen.now_s - seen.heartbeat_s <= policy.fresh_s
