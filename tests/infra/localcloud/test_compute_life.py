"""Proves that VMs live and end as Compute Engine's do: states in their order, at their times, with their operations.

Asked by the real client; the machines are not there, and time passes by hand.
"""

import pytest
from compute_world import PROJECT, ZONE, Cloud
from google.api_core import exceptions
from google.cloud import compute_v1

DONE = compute_v1.Operation.Status.DONE
PREEMPTED = "compute.instances.preempted"


def test_a_vm_comes_by_way_of_provisioning_and_staging_and_its_operation_with_it(cloud: Cloud) -> None:
    asked = cloud.insert()
    assert asked.status == compute_v1.Operation.Status.PENDING
    assert cloud.get().status == "PROVISIONING"
    seen = [(cloud.get().status, cloud.operation(asked.name).status.name)]
    for _ in range(40):
        cloud.pass_time(1)
        now = (cloud.get().status, cloud.operation(asked.name).status.name)
        seen += [now] if now != seen[-1] else []
    assert seen == [
        ("PROVISIONING", "PENDING"),
        ("PROVISIONING", "RUNNING"),
        ("STAGING", "RUNNING"),
        ("RUNNING", "DONE"),
    ]
    over = cloud.operation(asked.name)
    assert (over.progress, over.operation_type, over.target_id) == (100, "insert", cloud.get().id)
    assert over.insert_time < over.start_time < over.end_time


def test_the_guest_boots_a_while_after_the_vm_runs_and_gets_what_was_sent(cloud: Cloud) -> None:
    cloud.insert()
    cloud.pass_time(25)
    assert cloud.get().status == "RUNNING"
    assert cloud.machines.calls == []
    cloud.pass_time(10)
    ((_, name, instance_id, zone, machine_type, attributes, account),) = cloud.machines.done("boot")
    assert (name, instance_id, zone, machine_type) == ("vm-1", cloud.get().id, ZONE, "g2-standard-8")
    assert attributes == {"startup-script": "echo mine", "baton-role": "attempt"}
    assert account == "baton-vm@x.iam.gserviceaccount.com"


def test_wait_answers_when_the_operation_is_over(cloud: Cloud) -> None:
    asked = cloud.insert()
    cloud.pass_time(30)
    assert cloud.operations.wait(project=PROJECT, zone=ZONE, operation=asked.name).status == DONE


def test_a_preemption_is_announced_then_pressed_then_the_vm_is_gone(cloud: Cloud) -> None:
    vm = cloud.running()
    cloud.machines.obedient = False
    cloud.control("preempt", vm="vm-1")
    cloud.settle()
    assert cloud.machines.done("notice") == [("notice", "vm-1")]
    cloud.pass_time(119)
    assert cloud.get().status == "RUNNING"
    assert cloud.machines.done("acpi") == []
    cloud.pass_time(2)
    assert cloud.get().status == "STOPPING"
    assert cloud.machines.done("acpi") == [("acpi", "vm-1", 30.0)]
    cloud.machines.power_off("vm-1")  # it obeys, or the machine cuts its power when the grace is over
    cloud.pass_time(10)
    assert cloud.names() == []
    assert ("forget", "vm-1") in cloud.machines.calls
    (operation,) = [each for each in by_id(cloud, vm.id) if each.operation_type == PREEMPTED]
    assert (operation.status, operation.user, operation.status_message) == (DONE, "system", "Instance was preempted.")
    assert operation.name.startswith("systemevent-")


def by_id(cloud: Cloud, instance_id: int) -> list[compute_v1.Operation]:
    """What was done to a VM, as a watchdog asks for it when the VM is gone."""
    request = {"project": PROJECT, "zone": ZONE, "filter": f"targetId={instance_id}"}
    return list(cloud.operations.list(request=request))


def test_a_vm_that_asked_for_no_notice_gets_none_but_acpi(cloud: Cloud) -> None:
    cloud.running(scheduling={"preemption_notice_duration": {"seconds": 0}})
    cloud.control("preempt", vm="vm-1")
    cloud.settle()
    assert cloud.machines.done("acpi") == [("acpi", "vm-1", 30.0)]


def test_a_preemption_that_is_to_have_a_shorter_notice_has_it(cloud: Cloud) -> None:
    cloud.running()
    cloud.control("preempt", vm="vm-1", notice_s=30)
    cloud.settle()
    assert cloud.machines.done("acpi") == [("acpi", "vm-1", 30.0)]
    cloud.running("vm-2")
    cloud.control("preempt", vm="vm-2", notice_s=0)
    cloud.pass_time(5)
    assert cloud.machines.done("kill") == [("kill", "vm-2")]
    assert ("notice", "vm-2") not in cloud.machines.calls
    assert cloud.kinds("vm-2") == ["insert", PREEMPTED]
    assert cloud.names() == []


def test_with_termination_action_stop_a_preempted_vm_stays_and_starts_again(cloud: Cloud) -> None:
    first = cloud.running(scheduling={"instance_termination_action": "STOP"})
    cloud.control("preempt", vm="vm-1", notice_s=30)
    cloud.pass_time(5)
    assert cloud.get().status == "TERMINATED"
    assert cloud.get().last_stop_timestamp
    assert ("forget", "vm-1") not in cloud.machines.calls
    cloud.instances.start_unary(project=PROJECT, zone=ZONE, instance="vm-1")
    cloud.pass_time(60)
    assert (cloud.get().status, cloud.get().id) == ("RUNNING", first.id)
    assert [call[2] for call in cloud.machines.done("boot")] == [first.id, first.id]


def test_a_vm_that_is_preempted_while_it_is_created_never_was(cloud: Cloud) -> None:
    asked = cloud.insert()
    cloud.pass_time(5)
    cloud.control("preempt", vm="vm-1")
    over = cloud.operation(asked.name)
    assert over.error.errors[0].code == "UNSUPPORTED_OPERATION"
    assert cloud.kinds() == ["insert", PREEMPTED]
    cloud.pass_time(60)
    assert cloud.names() == []
    assert cloud.machines.done("boot") == []


def test_a_vm_that_is_preempted_before_it_booted_ends_without_ever_booting(cloud: Cloud) -> None:
    cloud.insert()
    cloud.pass_time(20)
    assert cloud.get().status == "RUNNING"
    cloud.control("preempt", vm="vm-1", notice_s=30)
    cloud.pass_time(60)
    assert cloud.names() == []
    assert cloud.machines.done("boot") == []


def test_a_guest_that_powers_off_leaves_a_terminated_vm_that_somebody_has_to_delete(cloud: Cloud) -> None:
    cloud.running()
    cloud.machines.power_off("vm-1")
    assert cloud.get().status == "TERMINATED"
    assert cloud.kinds() == ["insert", "compute.instances.guestTerminate"]
    cloud.pass_time(3600)
    assert cloud.get().status == "TERMINATED"
    deleted = cloud.instances.delete_unary(project=PROJECT, zone=ZONE, instance="vm-1")
    cloud.pass_time(5)
    assert cloud.names() == []
    assert cloud.operation(deleted.name).status == DONE


def test_delete_presses_the_button_and_waits_for_the_guest(cloud: Cloud) -> None:
    cloud.running()
    cloud.machines.obedient = False
    asked = cloud.instances.delete_unary(project=PROJECT, zone=ZONE, instance="vm-1")
    cloud.pass_time(20)
    assert cloud.get().status == "STOPPING"
    assert cloud.operation(asked.name).status == compute_v1.Operation.Status.RUNNING
    for what in (cloud.instances.delete_unary, cloud.instances.start_unary, cloud.instances.stop_unary):
        with pytest.raises(exceptions.BadRequest) as refused:
            what(project=PROJECT, zone=ZONE, instance="vm-1")
        assert refused.value.errors[0]["reason"] == "resourceNotReady"
    cloud.machines.power_off("vm-1")
    cloud.pass_time(5)
    assert cloud.operation(asked.name).status == DONE
    with pytest.raises(exceptions.NotFound):
        cloud.get()


def test_stop_and_start_keep_the_vm_and_stopping_twice_is_no_error(cloud: Cloud) -> None:
    first = cloud.running(spot=False, scheduling={"automatic_restart": True})
    cloud.instances.stop_unary(project=PROJECT, zone=ZONE, instance="vm-1")
    cloud.pass_time(5)
    assert cloud.get().status == "TERMINATED"
    again = cloud.instances.stop_unary(project=PROJECT, zone=ZONE, instance="vm-1")
    assert cloud.operation(again.name).status == DONE
    assert cloud.machines.done("acpi") == [("acpi", "vm-1", 120.0)]
    cloud.instances.start_unary(project=PROJECT, zone=ZONE, instance="vm-1")
    cloud.pass_time(60)
    now = cloud.get()
    assert (now.status, now.id) == ("RUNNING", first.id)
    assert now.last_start_timestamp > first.last_start_timestamp


@pytest.mark.parametrize(("action", "left"), [("DELETE", []), ("STOP", ["vm-1"])])
def test_a_vm_ends_when_its_time_is_up(cloud: Cloud, action: str, left: list[str]) -> None:
    limit = {"max_run_duration": {"seconds": 600}, "instance_termination_action": action}
    vm = cloud.running(scheduling=limit)
    assert vm.resource_status.scheduling.termination_timestamp > vm.last_start_timestamp
    cloud.pass_time(500)
    assert cloud.get().status == "RUNNING"
    cloud.pass_time(100)
    assert cloud.names() == left
    assert cloud.kinds()[-1] == action.lower()
    assert cloud.server.service.world.operations()[-1].user == "system"


def test_a_restart_begins_the_time_anew(cloud: Cloud) -> None:
    limit = {"max_run_duration": {"seconds": 600}, "instance_termination_action": "STOP"}
    cloud.running(scheduling=limit)
    cloud.pass_time(400)
    cloud.instances.stop_unary(project=PROJECT, zone=ZONE, instance="vm-1")
    cloud.pass_time(5)
    cloud.instances.start_unary(project=PROJECT, zone=ZONE, instance="vm-1")
    cloud.pass_time(400)
    assert cloud.get().status == "RUNNING"
    cloud.pass_time(300)
    assert cloud.get().status == "TERMINATED"


def test_a_host_error_cuts_the_power_and_leaves_the_vm_where_nothing_restarts_it(cloud: Cloud) -> None:
    cloud.running()
    cloud.control("host-error", vm="vm-1")
    cloud.pass_time(300)
    assert cloud.get().status == "TERMINATED"
    assert cloud.machines.done("kill") == [("kill", "vm-1")]
    assert cloud.machines.done("acpi") == []
    assert cloud.kinds() == ["insert", "compute.instances.hostError"]


def test_after_a_host_error_a_vm_that_restarts_automatically_does(cloud: Cloud) -> None:
    cloud.running(spot=False, machine_type="e2-micro", scheduling={"automatic_restart": True})
    cloud.control("host-error", vm="vm-1")
    cloud.pass_time(120)
    assert cloud.get().status == "RUNNING"
    expected = ["insert", "compute.instances.hostError", "compute.instances.automaticRestart", "start"]
    assert cloud.kinds() == expected
    assert len(cloud.machines.done("boot")) == 2


def test_simulated_maintenance_preempts_a_spot_vm_and_restarts_another_one(cloud: Cloud) -> None:
    cloud.running()
    cloud.instances.simulate_maintenance_event_unary(project=PROJECT, zone=ZONE, instance="vm-1")
    cloud.pass_time(130)
    assert cloud.names() == []
    assert PREEMPTED in cloud.kinds()
    cloud.running("vm-2", spot=False, scheduling={"automatic_restart": True})
    cloud.instances.simulate_maintenance_event_unary(project=PROJECT, zone=ZONE, instance="vm-2")
    cloud.pass_time(130)
    assert cloud.get("vm-2").status == "RUNNING"
    assert "compute.instances.terminateOnHostMaintenance" in cloud.kinds("vm-2")


def test_a_zombie_is_reported_gone_and_runs_on(cloud: Cloud) -> None:
    vm = cloud.running()
    cloud.control("zombie", vm="vm-1")
    cloud.pass_time(60)
    with pytest.raises(exceptions.NotFound):
        cloud.get()
    assert cloud.machines.is_running("vm-1")
    assert [each.operation_type for each in by_id(cloud, vm.id)] == ["insert", PREEMPTED]
    cloud.machines.power_off("vm-1")  # nobody asks about it any more
    assert cloud.kinds() == ["insert", PREEMPTED]


def test_a_new_vm_with_the_name_of_a_zombie_is_another_vm(cloud: Cloud) -> None:
    first = cloud.running()
    cloud.control("zombie", vm="vm-1")
    second = cloud.running()
    assert second.id != first.id
    assert cloud.machines.done("kill") == [("kill", "vm-1")]
    assert cloud.get().status == "RUNNING"


def test_two_preemptions_of_one_vm_are_one(cloud: Cloud) -> None:
    cloud.running()
    cloud.control("preempt", vm="vm-1")
    cloud.control("preempt", vm="vm-1")
    cloud.pass_time(300)
    assert cloud.kinds() == ["insert", PREEMPTED]
    assert len(cloud.machines.done("acpi")) == 1


def test_a_guest_that_powers_off_during_its_notice_is_not_preempted_any_more(cloud: Cloud) -> None:
    cloud.running()
    cloud.control("preempt", vm="vm-1")
    cloud.pass_time(60)
    cloud.machines.power_off("vm-1")
    cloud.pass_time(300)
    assert cloud.get().status == "TERMINATED"
    assert PREEMPTED not in cloud.kinds()


def test_a_vm_whose_machine_cannot_be_switched_on_is_running_for_the_cloud_and_can_be_deleted(
    cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    cloud.machines.boot = lambda *_, **__: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    cloud.running()
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert cloud.get().status == "RUNNING"
    cloud.instances.delete_unary(project=PROJECT, zone=ZONE, instance="vm-1")
    cloud.pass_time(10)
    assert cloud.names() == []
