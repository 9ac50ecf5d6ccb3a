"""Proves that a VM on which somebody else's code has the VM's own rights can stop its run, and no more: control/ stays
as it is, no machine is made or ended by its word, and whatever it wrote elsewhere, its leftovers are cleared away.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cloud_runs import VmRun
from laptops import launch_and_go, watch_impatiently

TASK = Path(__file__).with_name("hostile.py")
REFUSED = {0, 400, 401, 403, 404, 405, 412, 501}
"""0: the connection ended without an answer."""
MOST_VMS = 3
"""As many failures in a row end a run; an end that was forged before its VM was there counts for nothing."""


@pytest.mark.long
@pytest.mark.parametrize("kind", ["Nonsense", "Far"])
def test_a_hostile_vm_stops_its_run_and_nothing_else(vm_run: VmRun, kind: str) -> None:
    shutil.copy(TASK, vm_run.cloud.workplace)
    vm_run.settings.append(f"task=hostile.py:{kind}")
    launch_and_go(vm_run)
    spec = "control/spec/0001.json"
    before = vm_run.read(spec)
    watchdog = watch_impatiently(vm_run, retry_s=1)
    vm_run.wait_until(lambda: vm_run.store.stat("blobs/hostile.json") is not None, "the attack")
    vm_run.wait_until(lambda: not watchdog.lives(), "the watchdog's end")
    assert watchdog.wait() == 0, watchdog.said

    report: dict[str, Any] = json.loads(vm_run.read("blobs/hostile.json"))
    for part in ("control", "compute", "local"):
        got = {what: status for what, status in report[part].items() if status not in REFUSED}
        assert got == {}, f"{part}: {got}"
    assert len(report["control"]) > 40
    assert {report["own"][what] for what in ("heartbeat 1", "exit 2", "result")} == {200}, "these are its to write"
    assert report["own"]["checkpoints"]

    assert vm_run.read(spec) == before
    assert [info.name for info in vm_run.store.list("control/spec/")] == [spec]
    assert vm_run.cloud.vms() == []
    claims = vm_run.claims()
    assert claims.want == "failed", claims.reason
    assert [claim.number for claim in claims.attempts] == list(range(1, len(claims.attempts) + 1))
    assert len(vm_run.vm_ids()) <= len(claims.attempts) <= MOST_VMS
    for claim in claims.attempts:
        assert claim.spot
        assert (claim.machine_type or "").startswith("g2-"), "an L4, as the person asked"
    made = {event["vm"] for event in vm_run.cloud.events() if event["what"] == "RUNNING"}
    assert "mine" not in made
    for words in (["status"], ["gc", "--dry-run"], ["logs"]):
        command = vm_run.cloud.start(words[0], vm_run.name, *words[1:], name="person")
        assert command.wait() in (0, 3), command.said
        assert "Traceback" not in command.said
        assert "\x1b" not in command.said
