"""Proves that what was answered for is known after the server's end, and that VMs which it took with it have lost their
host; and that what happens can be followed over the wire.
"""

import threading
from pathlib import Path

import httpx
from compute_world import PROJECT, ZONE, Cloud, FakeMachines, HandClock

from infra.localcloud.compute import start
from infra.localcloud.compute.timers import Hands, RealTimers, Timings


def test_the_next_server_knows_what_the_last_one_knew_and_that_its_vms_lost_their_host(tmp_path: Path) -> None:
    clock = HandClock()
    with start(tmp_path, FakeMachines(), project=PROJECT, timers=clock) as server:
        cloud = Cloud(server, FakeMachines(), clock)
        cloud.machines = server.service.machines  # type: ignore[assignment]
        vm = cloud.running("ran")
        cloud.running("stopped")
        cloud.machines.power_off("stopped")
        stopped_at = cloud.get("stopped").last_stop_timestamp
        cloud.running("deleted")
        cloud.instances.delete_unary(project=PROJECT, zone=ZONE, instance="deleted")
        cloud.pass_time(10)
        coming = cloud.insert("coming", request_id="6f6ab8a5-0f5c-4d6f-8f0a-3a2f4f1f4f14")
        clock.seconds += 100
        before = {each.name: each for each in server.service.world.operations()}
    machines, clock_after = FakeMachines(), HandClock()
    clock_after.seconds = clock.seconds + 1000
    with start(tmp_path, machines, project=PROJECT, timers=clock_after) as server:
        cloud = Cloud(server, machines, clock_after)
        assert cloud.names() == ["ran", "stopped"]
        assert (cloud.get("ran").status, cloud.get("ran").id) == ("TERMINATED", vm.id)
        assert cloud.kinds("ran") == ["insert", "compute.instances.hostError"]
        assert (cloud.get("stopped").status, cloud.get("stopped").last_stop_timestamp) == ("TERMINATED", stopped_at)
        assert cloud.kinds("stopped") == ["insert", "compute.instances.guestTerminate"]
        assert cloud.operation(coming.name).error.errors[0].code == "INTERNAL_ERROR"
        after = {each.name: each for each in server.service.world.operations()}
        assert {name: after[name] for name in before if before[name].done} == {
            name: each for name, each in before.items() if each.done
        }
        cloud.instances.delete_unary(project=PROJECT, zone=ZONE, instance="ran")
        cloud.pass_time(10)
        assert cloud.names() == ["stopped"]


def test_operations_are_forgotten_after_two_weeks(tmp_path: Path) -> None:
    clock = HandClock()
    with start(tmp_path, FakeMachines(), project=PROJECT, timers=clock) as server:
        Cloud(server, FakeMachines(), clock).insert()
        clock.seconds += 13 * 24 * 3600
    for days, kept in ((0, 1), (2, 0)):
        clock_after = HandClock()
        clock_after.seconds = clock.seconds + days * 24 * 3600
        with start(tmp_path, FakeMachines(), project=PROJECT, timers=clock_after) as server:
            assert len(server.service.world.operations()) == kept


def test_what_happens_can_be_followed(cloud: Cloud) -> None:
    url = f"{cloud.server.url}/_control/events"
    found: list[dict[str, object]] = []

    def follow() -> None:
        while not any(event["what"] == "RUNNING" for event in found):
            after = found[-1]["number"] if found else 0
            found.extend(httpx.get(url, params={"after": str(after), "wait_s": 30}, timeout=40).json()["events"])

    follower = threading.Thread(target=follow)
    follower.start()
    cloud.running()
    follower.join(20)
    assert [event["what"] for event in found if event["vm"] == "vm-1"][:4] == [
        "PROVISIONING",
        "STAGING",
        "RUNNING",
        "done",
    ]
    state = httpx.get(f"{cloud.server.url}/_control").json()
    assert [(vm["name"], vm["status"]) for vm in state["vms"]] == [("vm-1", "RUNNING")]
    assert state["asked"]["insert"] == 1


def test_a_server_that_stops_ends_all_waiting(tmp_path: Path) -> None:
    clock = HandClock()
    answers: list[int] = []
    with start(tmp_path, FakeMachines(), project=PROJECT, timers=clock) as server:
        asked = Cloud(server, FakeMachines(), clock).insert()
        url = f"{server.url}/compute/v1/projects/{PROJECT}/zones/{ZONE}/operations/{asked.name}/wait"
        waiting = [
            threading.Thread(target=lambda: answers.append(httpx.post(url, timeout=60).status_code)),
            threading.Thread(
                target=lambda: answers.append(
                    httpx.get(f"{server.url}/_control/events?after=99&wait_s=60", timeout=60).status_code
                )
            ),
        ]
        for thread in waiting:
            thread.start()
        while threading.active_count() < 6:  # ours, the servers', and those that answer the two
            threading.Event().wait(0.01)
    for thread in waiting:
        thread.join(20)
        assert not thread.is_alive()


def test_timers_keep_to_their_order_and_a_bug_in_one_is_not_the_end(capfd: object) -> None:
    timers, done, over = RealTimers(), [], threading.Event()
    timers.after(0.06, lambda: done.append("late"))
    timers.after(0.02, lambda: done.append("early"))
    timers.after(0.04, lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    timers.after(0.08, over.set)
    assert over.wait(20)
    timers.close()
    assert done == ["early", "late"]


def test_hands_do_one_thing_after_the_other_for_a_vm_and_several_vms_at_once() -> None:
    hands, done, go_on = Hands(), [], threading.Event()

    def first() -> None:
        assert go_on.wait(20)
        done.append("a1")

    def other() -> None:
        done.append("b")
        go_on.set()

    hands.do("a", first)
    hands.do("a", lambda: done.append("a2"))
    hands.do("b", other)
    assert hands.wait(20)
    assert done == ["b", "a1", "a2"]


def test_a_faster_cloud_is_faster_in_all_that_it_does() -> None:
    fast = Timings().scaled(60)
    assert (fast.acpi_spot_s, fast.guest_boot_s, fast.scale) == (0.5, 0.2, 60)
