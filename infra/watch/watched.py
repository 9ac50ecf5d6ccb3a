"""One run that is watched: what is remembered of it, when it is looked at next, and what has been said of it."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from infra.cloud.types import Trouble, VmList, VmStatus
from infra.naming import hash8
from infra.recovery import Plan
from infra.watch.looks import Looks
from infra.watch.notify import Teller, events_of, waiting_event
from infra.watch.observed import Observed, Unknown
from job.errors import BatonError
from job.run.head import Status

LOOK_S = 10.0
"""Between two close looks at a run of which nothing new is seen."""
FINAL_S = 15.0
"""The same for a run that is over: somebody may resume it."""
TELL_S = 60.0
"""Between two words in control/looked.json."""
ASK_AGAIN_S = 5.0
ASK_MOST_S = 60.0


@dataclass
class _Asked:
    """Politeness towards a service that refuses: what was asked when, and how long to leave it."""

    at_s: float
    pause_s: float


@dataclass
class Watched:
    """What is remembered of a run: nothing but what saves requests and words."""

    uri: str
    looks: Looks
    teller: Teller
    say: Callable[[str], None]
    project: str | None = None
    learned_s: float = float("-inf")
    picture: tuple[tuple[str, VmStatus], ...] | None = None
    looked_s: float = float("-inf")
    told_s: float = float("-inf")
    told_note: str = ""
    busy: bool = True
    final: bool = False
    over: bool = False
    """Final, and nothing of it is left in the cloud."""
    trouble: str = ""
    new_trouble: str = ""
    again: bool = False
    """Something was done that is worth another look at once."""
    asked: dict[int, _Asked] = field(default_factory=dict)
    refused: Trouble | None = None
    """What the newest insert was answered with, where it is going to be asked again."""
    plan: Plan | None = None

    @property
    def label(self) -> str:
        """That its VMs carry."""
        return hash8(self.uri)

    def is_new(self, now_s: float) -> bool:
        """Whether to ask which project its VMs are in: that is not known, nor was it asked for a moment ago."""
        return self.project is None and now_s - self.learned_s >= FINAL_S

    def is_due(self, vms: VmList | Unknown, now_s: float) -> bool:
        """Whether to look closely: its VMs changed, something is under way, or it is time."""
        picture = None if isinstance(vms, Unknown) else tuple(sorted((vm.name, vm.status) for vm in vms.vms))
        changed = picture is not None and picture != self.picture
        self.picture = picture if picture is not None else self.picture
        if self.project is None:
            return False
        pause_s = FINAL_S if self.final else LOOK_S
        return changed or self.busy or now_s - self.looked_s >= pause_s

    def guarded(self, work: Callable[[], None]) -> None:
        """What fails with one run leaves the others watched."""
        self.new_trouble, self.again = "", False
        try:
            work()
        except BatonError as error:
            self.complain(error.what)
        except Exception:
            self.complain(traceback.format_exc().rstrip())
        self.trouble = self.new_trouble

    def complain(self, text: str) -> None:
        """Once, until it works or fails otherwise."""
        self.new_trouble = text
        if self.trouble != text:
            self.say(text)

    def tell_looked(self, watcher: str) -> None:
        """That somebody looks, for people; and the bucket's time, without which no age is known. Raises BatonError."""
        clock = self.looks.clock
        note = "" if self.plan is None else self.plan.note
        if clock.is_known() and (self.final or clock.now() - self.told_s < TELL_S) and self.told_note == note:
            return
        self.looks.tell_looked(watcher, note, clock.time_s() + TELL_S)
        self.told_s, self.told_note = clock.now(), note

    def may_ask(self, number: int, now_s: float) -> bool:
        """Whether this claim's insert is asked for now; each time that it is, the next is left for longer."""
        before = self.asked.get(number)
        if before is not None and now_s - before.at_s < before.pause_s:
            return False
        pause_s = ASK_AGAIN_S if before is None else min(ASK_MOST_S, 2 * before.pause_s)
        self.asked = {number: _Asked(now_s, pause_s)}
        return True

    def settle(self, seen: Observed, plan: Plan) -> None:
        """How soon to look again, what people hear. Raises BatonError."""
        claims, newest = plan.after, plan.after.newest
        head = seen.head_record()
        finished = head is not None and head.status is Status.FINISHED
        open_vm = newest is not None and newest.kind == "vm" and newest.ended is None
        self.final = not open_vm and (claims.want != "run" or finished)
        vm = None if newest is None else seen.vm_of(newest)
        steady = not isinstance(vm, Unknown) and vm is not None and vm.status is VmStatus.RUNNING
        doubted = newest is not None and newest.doubted_at_s is not None
        acted = bool(plan.rewrites or plan.asks or plan.stops or plan.deletes)
        waits = plan.next_try_s is not None and plan.next_try_s - seen.now_s > LOOK_S
        self.busy = acted or doubted or (open_vm and not steady and not isinstance(seen.vms, Unknown))
        self.busy = self.busy and not waits
        self.over = self.final and not acted and not isinstance(seen.vms, Unknown) and not seen.vms
        events = events_of(claims)
        if plan.next_try_s is not None and waits:
            waiting = waiting_event(claims, plan.note, plan.next_try_s, seen.now_s)
            events = events if waiting is None else (*events, waiting)
        self.teller.tell(events, seen.now_s)
