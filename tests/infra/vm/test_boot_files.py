"""Proves that what boots on a VM is sound before one boots it: for shellcheck, for systemd, for Compute Engine's limits
on metadata; and that no file of it knows where it runs.
"""

import re
import subprocess
from pathlib import Path

import pytest

from infra.vm import FILES, FOLDER, STARTUP_SCRIPT, boot_attributes

KEY = re.compile(r"[a-zA-Z0-9_-]{1,128}")
VALUE_BYTES, ALL_BYTES = (
    256 * 1024,
    512 * 1024,
)  # cloud.google.com/compute/docs/metadata/overview, Limitations (2026-11)


def test_every_file_travels_in_metadata_and_fits_there() -> None:
    attributes = boot_attributes()
    assert {path.name for path in FOLDER.iterdir() if path.suffix in (".sh", ".service")} == {STARTUP_SCRIPT, *FILES}
    assert all(KEY.fullmatch(key) for key in attributes)
    assert max(len(text.encode()) for text in attributes.values()) < VALUE_BYTES
    assert sum(len(key) + len(text.encode()) for key, text in attributes.items()) < ALL_BYTES


def test_the_startup_script_asks_for_every_file() -> None:
    script = boot_attributes()["startup-script"]
    (asked,) = re.findall(r"^for file in (.*); do$", script, re.MULTILINE)
    assert set(asked.split()) == set(FILES)


@pytest.mark.parametrize("name", [STARTUP_SCRIPT, *(name for name in FILES if name.endswith(".sh"))])
@pytest.mark.needs_system("shellcheck")
def test_shellcheck_finds_nothing(name: str) -> None:
    command = ["shellcheck", "--external-sources", str(FOLDER / name)]
    found = subprocess.run(command, cwd=FOLDER.parents[1], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.needs_system("systemd-analyze")
def test_systemd_understands_every_setting_of_the_units() -> None:
    units = [str(FOLDER / name) for name in FILES if name.endswith(".service")]
    found = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    ours = [line for line in found.stderr.splitlines() if "baton" in line and "docker is not executable" not in line]
    assert ours == []


def test_systemd_gives_up_on_the_ends_that_another_start_cannot_mend() -> None:
    unit, script = ((FOLDER / name).read_text() for name in ("baton.service", "ended.sh"))
    assert "RestartPreventExitStatus=2 3 4 75\n" in unit
    assert "case $code in 0 | 2 | 3 | 4 | 75)" in script


def test_no_file_knows_of_a_local_cloud() -> None:
    for path in FOLDER.iterdir():
        if path.is_file():
            assert not re.search(r"localcloud|LOCAL_VM|127\.0", Path(path).read_text()), path
