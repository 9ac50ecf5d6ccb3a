"""What happens to a VM from its creation to its end, step by step, as time passes and as the platform pleases."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from infra.localcloud.compute.errors import OperationError, preempted_while_created
from infra.localcloud.compute.machines import Machines
from infra.localcloud.compute.records import Instance, Operation
from infra.localcloud.compute.timers import Hands, Timers, Timings
from infra.localcloud.compute.world import SYSTEM, World

Refuse = Callable[[Instance], OperationError | None]
"""Why there is no machine for this VM, if there is none."""


@dataclass(frozen=True)
class Ending:
    """How a VM that stops will have ended."""

    delete: bool
    operations: tuple[Operation, ...] = ()
    """Over when it is."""
    restart: bool = False


class Life:
    """The steps. Every one is taken under the world's lock; machines are switched by hands of their own."""

    def __init__(self, world: World, machines: Machines, timers: Timers, timings: Timings, refuse: Refuse) -> None:
        self._world = world
        self._machines = machines
        self._timers = timers
        self.timings = timings
        self._refuse = refuse
        self.hands = Hands()
        self._turns: dict[int, int] = {}  # a step that was planned for an earlier turn of a VM is not taken
        self._creating: dict[int, Operation] = {}
        self._endings: dict[int, Ending] = {}
        self._booted: set[int] = set()
        machines.on_exit(self._exited)

    def create(self, instance: Instance, operation: Operation) -> None:
        """From insert or start to RUNNING, or to the operation's error."""
        with self._world.lock:
            self._creating[instance.id] = operation
            self._then(instance, self.timings.pending_s, lambda now: self._find_room(now, operation))

    def _find_room(self, instance: Instance, operation: Operation) -> None:
        self._world.run(operation)
        error = self._refuse(instance)
        if error is not None:
            self._then(instance, self.timings.refusal_s, lambda now: self._not_created(now, error))
        else:
            self._then(instance, self.timings.provisioning_s, self._stage)

    def _stage(self, instance: Instance) -> None:
        self._put(instance, status="STAGING")
        self._then(instance, self.timings.staging_s, self._run)

    def _run(self, instance: Instance) -> None:
        running = self._put(instance, status="RUNNING", started_s=self._world.now(), stopped_s=None)
        self._world.finish(self._creating.pop(instance.id))
        self._then(running, self.timings.guest_boot_s, self._boot)
        if running.max_run_s is not None:
            self._then(running, running.max_run_s, self._time_is_up)

    def _boot(self, instance: Instance) -> None:
        self.hands.do(instance.name, lambda: self._switch_on(instance))

    def _switch_on(self, instance: Instance) -> None:
        if self._machines.is_running(instance.name):
            self._machines.kill(instance.name)  # a zombie of the same name: it had its time
        account, scopes = instance.service_account
        try:
            self._machines.boot(
                instance.name,
                instance_id=instance.id,
                zone=instance.zone,
                machine_type=instance.machine_type,
                attributes=instance.attributes,
                labels=instance.labels,
                scheduling=instance.scheduling,
                service_account=account,
                scopes=scopes,
            )
        except Exception as error:
            self._world.tell("boot failed", instance.name, error=repr(error))
            raise
        with self._world.lock:
            self._booted.add(instance.id)
        self._world.tell("boot", instance.name, zone=instance.zone, id=str(instance.id))
        self._exited(instance.name)  # nobody was told where it ended that soon

    def _not_created(self, instance: Instance, error: OperationError) -> None:
        operation = self._creating.pop(instance.id)
        self._next_turn(instance)
        if operation.kind == "start":
            self._put(instance, status="TERMINATED")
        else:
            self._world.remove(instance)
        self._world.finish(operation, error)

    def stop(self, instance: Instance, operation: Operation | None, *, delete: bool) -> None:
        """The ACPI signal, its grace, the end. For one that has stopped, `delete` deletes it."""
        with self._world.lock:
            operations = () if operation is None else (operation,)
            if instance.status == "TERMINATED":
                self._next_turn(instance)
                self._endings[instance.id] = Ending(delete, operations)
                self._put(instance, status="STOPPING")
                self._then(instance, self.timings.pending_s, self._off)
                return
            grace_s = self.timings.acpi_spot_s if instance.spot else self.timings.acpi_s
            self._press_button(instance, Ending(delete, operations), grace_s)

    def preempt(self, instance: Instance, notice_s: float | None = None) -> None:
        """As the platform does: the metadata server's notice where one was asked for, ACPI and 30 s, the end.

        `notice_s`: 0 cuts the power at once, 30 leaves out the metadata server's notice.
        """
        with self._world.lock:
            if instance.id in self._creating:
                path = f"{instance.zone}/instances/{instance.name}"
                self._preempted(instance)
                self._not_created(instance, preempted_while_created(path))
                return
            early_s = instance.notice_s if notice_s is None else notice_s - 30.0 if notice_s > 30.0 else 0.0
            if notice_s == 0.0:
                self._preempted(instance)
                self._cut_power(instance, Ending(instance.deletes_itself))
                return
            self._world.tell("notice", instance.name, seconds=early_s)
            self.hands.do(instance.name, lambda: self._machines.announce_preemption(instance.name))
            if early_s:
                self._then(instance, early_s / self.timings.scale, self._take_back)
            else:
                self._take_back(instance)

    def _take_back(self, instance: Instance) -> None:
        self._preempted(instance)
        self._press_button(instance, Ending(instance.deletes_itself), self.timings.acpi_spot_s)

    def _preempted(self, instance: Instance) -> None:
        self._world.system_event(instance, "compute.instances.preempted", "Instance was preempted.")

    def host_error(self, instance: Instance, kind: str = "compute.instances.hostError") -> None:
        """The host fails: the power is gone, and comes back only for a VM that restarts automatically."""
        with self._world.lock:
            self._world.system_event(instance, kind, "Instance terminated by Compute Engine.")
            self._cut_power(instance, Ending(False, restart=bool(instance.scheduling["automaticRestart"])))

    def zombie(self, instance: Instance) -> None:
        """It is reported preempted and gone, and runs on."""
        with self._world.lock:
            self._preempted(instance)
            self._next_turn(instance)
            self._booted.discard(instance.id)
            self._world.remove(instance)

    def _time_is_up(self, instance: Instance) -> None:
        operation = self._world.begin(instance, "delete" if instance.deletes_itself else "stop", SYSTEM)
        self._world.run(operation)
        self.stop(instance, operation, delete=instance.deletes_itself)

    def _press_button(self, instance: Instance, ending: Ending, grace_s: float) -> None:
        self._stopping(instance, ending)

        def press() -> None:
            self._machines.acpi_stop(instance.name, grace_s)
            self._exited(instance.name)  # on_exit tells nothing of one that had not booted

        self.hands.do(instance.name, press)

    def _cut_power(self, instance: Instance, ending: Ending) -> None:
        self._stopping(instance, ending)

        def cut() -> None:
            self._machines.kill(instance.name)
            self._exited(instance.name)

        self.hands.do(instance.name, cut)

    def _stopping(self, instance: Instance, ending: Ending) -> None:
        self._next_turn(instance)
        self._endings[instance.id] = ending
        for operation in ending.operations:
            self._world.run(operation)
        self._put(instance, status="STOPPING")

    def _exited(self, name: str) -> None:
        """Sees whether any process of it is left."""
        if self._machines.is_running(name):
            return
        with self._world.lock:
            for instance in self._world.instances():
                if instance.name != name:
                    continue
                if instance.status == "STOPPING":
                    self._booted.discard(instance.id)
                    self._next_turn(instance)
                    self._then(instance, self.timings.deleting_s if self._deletes(instance) else 0.0, self._off)
                elif instance.status == "RUNNING" and instance.id in self._booted:
                    self._booted.discard(instance.id)
                    self._world.system_event(
                        instance, "compute.instances.guestTerminate", "Guest OS initiated shutdown."
                    )
                    self._next_turn(instance)
                    self._put(instance, status="TERMINATED", stopped_s=self._world.now())

    def _deletes(self, instance: Instance) -> bool:
        return instance.id in self._endings and self._endings[instance.id].delete

    def _off(self, instance: Instance) -> None:
        ending = self._endings.pop(instance.id)
        self._next_turn(instance)
        if ending.delete:
            self._world.remove(instance)
            self.hands.do(instance.name, lambda: self._forget(instance))
        else:
            stopped_s = self._world.now() if instance.stopped_s is None else instance.stopped_s
            self._put(instance, status="TERMINATED", stopped_s=stopped_s)
            if ending.restart:
                self._then(instance, self.timings.restarting_s, self._restart)
        for operation in ending.operations:
            self._world.finish(operation)

    def _forget(self, instance: Instance) -> None:
        if not self._machines.is_running(instance.name):
            self._machines.forget(instance.name)

    def _restart(self, instance: Instance) -> None:
        self._world.system_event(
            instance, "compute.instances.automaticRestart", "Instance automatically restarted by Compute Engine."
        )
        self.start(instance, self._world.begin(instance, "start", SYSTEM))

    def start(self, instance: Instance, operation: Operation) -> None:
        """From TERMINATED to RUNNING, or to the operation's error."""
        with self._world.lock:
            self._next_turn(instance)
            self.create(self._put(instance, status="PROVISIONING"), operation)

    def power_failed(self) -> None:
        """What an earlier server's end left running has lost its host; what it was doing is not done."""
        for operation in self._world.operations():
            if not operation.done:
                self._world.finish(operation, OperationError("INTERNAL_ERROR", "The local cloud was stopped.", 503))
        for instance in self._world.instances():
            if instance.status in ("PROVISIONING", "STAGING") and instance.started_s is None:
                self._world.remove(instance)
            elif instance.status != "TERMINATED":
                self._world.system_event(
                    instance, "compute.instances.hostError", "Instance terminated by Compute Engine."
                )
                off = self._put(instance, status="TERMINATED", stopped_s=self._world.now())
                if instance.scheduling["automaticRestart"]:
                    self._then(off, self.timings.restarting_s, self._restart)

    def _put(self, instance: Instance, **fields: object) -> Instance:
        now = self._world.same(instance)
        assert now is not None, f"{instance.name} is gone"
        return self._world.put(replace(now, **fields))  # type: ignore[arg-type]

    def _then(self, instance: Instance, delay_s: float, step: Callable[[Instance], None]) -> None:
        """Takes the step later, unless something else befalls the VM before."""
        turn = self._turns.setdefault(instance.id, 0)

        def take() -> None:
            with self._world.lock:
                now = self._world.same(instance)
                if now is not None and self._turns.get(instance.id) == turn:
                    step(now)

        if delay_s <= 0:
            take()
        else:
            self._timers.after(delay_s, take)

    def _next_turn(self, instance: Instance) -> None:
        self._turns[instance.id] = self._turns.get(instance.id, 0) + 1
