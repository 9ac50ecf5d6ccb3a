"""Proves that baton.service does what is wanted of it under the real systemd, and that the local VM's systemd does the
same with it: which commands run, in which order, with what they are told; when it starts again, and when it ends.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from vms import wait_until

from infra.localcloud.vm.box import REPOSITORY, Box
from infra.localcloud.vm.processes import children
from infra.vm import FOLDER

SYSTEMD = "/usr/lib/systemd/systemd"
BARE = "[Unit]\nDefaultDependencies=no\n"
UNITS = {
    "default.target": f"{BARE}Wants=baton.service\n",
    "basic.target": BARE,
    "shutdown.target": BARE,
    "exit.target": f"{BARE}Requires=systemd-exit.service\nAfter=systemd-exit.service\nAllowIsolate=yes\n",
    "systemd-exit.service": f"{BARE}Requires=shutdown.target\nAfter=shutdown.target\nSuccessAction=exit-force\n"
    "[Service]\nSlice=-.slice\n",
}
"""What a user's systemd has around baton.service."""
STUB = """\
# Stands for docker, gpu-check.sh and ended.sh: notes that it ran; `docker run` ends as the next line of `ends` says.
cd FOLDER
what=${1##*/} && what=${what%.sh} && shift
if [[ $what == ended ]]; then
    restarts=$(SYSTEMCTL show --property NRestarts --value baton.service)
    [[ $(SYSTEMCTL is-system-running) == stopping ]] && state=stopping || state=running
    echo "ended ${EXIT_STATUS:-none}, $restarts restarts, $state" >> trace
    case ${EXIT_STATUS:-none}-$restarts in 0-* | 3-* | 75-* | *-2) POWEROFF ;; esac
    exit 1 # makes no difference
fi
echo "$what $*" >> trace
case "$what $1" in
    "docker run")
        read -r code < ends && sed -i 1d ends
        if [[ $code != stays ]]; then exit "$code"; fi
        trap '' TERM # docker's client hands it on and does not end of it: `docker stop` may return before this has
        trap 'rm running; exit 75' USR1
        echo $$ > running
        while true; do sleep 0.01; done
        ;;
    "docker stop")
        if [[ -e running ]]; then kill -USR1 "$(< running)"; fi
        while [[ -e running ]]; do sleep 0.01; done
        ;;
    "gpu-check "*) ! [[ -e sick ]] ;;
esac
"""
RUN = (
    "docker run --name baton --init --pull never --network host --log-driver none --oom-score-adj 500 "
    "--stop-timeout 25 --env-file %S/baton/container.env --gpus all image"
)
STOP = "docker stop --time 25 baton"  # also after an end of its own, if that was a clean one
BEFORE = ["docker rm --force baton", "gpu-check "]
CASES: dict[str, tuple[list[str], list[str]]] = {
    "finished": (["0"], [*BEFORE, RUN, STOP, "ended 0, 0 restarts, running"]),
    "preempted": (["75"], [*BEFORE, RUN, STOP, "ended 75, 0 restarts, running"]),
    "refused": (["3"], [*BEFORE, RUN, STOP, "ended 3, 0 restarts, running"]),
    "crashed, then finished": (
        ["1", "0"],
        [*BEFORE, RUN, "ended 1, 0 restarts, running", *BEFORE, RUN, STOP, "ended 0, 1 restarts, running"],
    ),
    "crashed three times": (
        ["1", "137", "1"],
        [line for n, code in enumerate([1, 137, 1]) for line in (*BEFORE, RUN, f"ended {code}, {n} restarts, running")],
    ),
    "stopped": (["stays"], [*BEFORE, RUN, STOP, "ended 75, 0 restarts, stopping"]),
    "sick": ([], [line for n in range(3) for line in (*BEFORE, f"ended none, {n} restarts, running")]),
}


def prepare(folder: Path, state: Path, ends: Sequence[str], systemctl: str, power_off: str) -> Path:
    """The real unit file, with stubs for what it calls; `state` is what systemd calls %S."""
    (state / "baton").mkdir(parents=True)
    (state / "baton/unit.env").write_text("IMAGE=image\nFLAGS=--gpus all\nCOMMAND=\nGPU=l4\n")
    (folder / "stub").write_text(
        STUB.replace("FOLDER", str(folder)).replace("SYSTEMCTL", systemctl).replace("POWEROFF", power_off)
    )
    (folder / "ends").write_text("".join(f"{code}\n" for code in ends))
    if not ends:
        (folder / "sick").touch()
    (folder / "trace").touch()
    unit = (FOLDER / "baton.service").read_text()
    stub = f"bash {folder}/stub"
    changes = {"bash %S/baton/": f"{stub} ", "=docker": f"={stub} docker", "=-docker": f"=-{stub} docker"}
    for old, new in (changes | {"RestartSec=2": "RestartSec=0.1"}).items():
        assert old in unit
        unit = unit.replace(old, new)
    file = folder / "units/baton.service"
    file.parent.mkdir()
    file.write_text(unit)
    return file


def trace(folder: Path, state: Path) -> list[str]:
    return (folder / "trace").read_text().replace(str(state), "%S").splitlines()


@pytest.mark.needs_system("unshare", "the right to mount", "the right to unshare", SYSTEMD)
@pytest.mark.parametrize("case", CASES)
def test_the_real_systemd_does_with_the_unit_what_is_wanted(tmp_path: Path, case: str) -> None:
    ends, wanted = CASES[case]
    state = tmp_path / "state"
    # For a user's systemd `exit` is what `poweroff` is for the system's.
    unit = prepare(tmp_path, state, ends, "systemctl --user", "systemctl --user exit")
    for name, text in UNITS.items():
        (unit.parent / name).write_text(text)
    # As PID 1 it would take itself for the system's.
    begin = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && mkdir -m 700 /run/user && $0 --user; exit $?"
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    env = {
        "PATH": os.environ["PATH"],
        "XDG_RUNTIME_DIR": "/run/user",
        "XDG_CONFIG_HOME": str(state),
        "XDG_STATE_HOME": str(state),
        "SYSTEMD_UNIT_PATH": str(unit.parent),
    }
    with subprocess.Popen([*namespaces, "bash", "-c", begin, SYSTEMD], env=env) as unshare:
        try:
            if ends == ["stays"]:
                wait_until(lambda: (tmp_path / "running").exists())
                ((systemd,),) = [children(bash) for bash in children(unshare.pid)]
                os.kill(systemd, signal.SIGTERM)
            wait_until(lambda: unshare.poll() is not None, lambda: "\n".join(trace(tmp_path, state)))
        finally:
            unshare.kill()
    assert trace(tmp_path, state) == wanted


@pytest.mark.parametrize("case", CASES)
def test_a_local_vms_systemd_does_the_same(tmp_path: Path, case: str) -> None:
    ends, wanted = CASES[case]
    box = Box(tmp_path / "box")
    box.make(1)
    box.set_hardware()
    state = box.disk / "var/lib"
    unit = prepare(tmp_path, state, ends, "systemctl", "systemctl poweroff --no-block")
    box.startup_script.write_text(f"systemctl link {unit} && systemctl start --no-block baton.service\n")
    keeper = [sys.executable, "-m", "infra.localcloud.vm.keeper", str(box.startup_script)]
    with subprocess.Popen(keeper, env=box.env({}), cwd=REPOSITORY, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            if ends == ["stays"]:
                wait_until(lambda: (tmp_path / "running").exists())
                process.stdin.write(b"acpi 60\n")
                process.stdin.flush()
            wait_until(lambda: process.poll() is not None, lambda: "\n".join(trace(tmp_path, state)))
        finally:
            process.stdin.close()
    assert trace(tmp_path, state) == wanted
