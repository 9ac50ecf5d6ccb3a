"""Proves what the scripts of a VM do when things go wrong around them: the console takes a bounded place on the disk
and reaches the bucket whole as long as the bucket takes it, and the last word of a VM says why its container ended.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.vm import FOLDER
from tests.infra.localcloud.vms import wait_until

SEGMENT = 262144
MOST_BYTES = 64 << 20
BUCKET_SH = """
put() {
    [[ ! -e bucket-is-away ]] || return 1
    mkdir -p "$(dirname "taken/$2")"
    cp "$1" "taken/$2"
}
"""
DOCKER = '#!/bin/bash\necho "$(< "$STATE_DIRECTORY/code") false"\n'
SYSTEMCTL = """#!/bin/bash
case $1 in
    is-system-running) echo running ;;
    show) [[ $3 == NRestarts ]] && cat "$STATE_DIRECTORY/restarts" || echo 3 ;;
    poweroff) touch "$STATE_DIRECTORY/powered-off" ;;
esac
"""


class Shipping:
    """ship-logs.sh at work in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.console = folder / "console.log"
        self._out = (folder / "out").open("wb")
        env = {**os.environ, "STATE_DIRECTORY": str(folder), "FOLDER": "f"}
        self._process = subprocess.Popen(["bash", FOLDER / "ship-logs.sh"], env=env, stdout=self._out)

    def stop(self) -> None:
        """As the unit stops it: it ships the rest."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(60) == 0
        self._out.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()

    @property
    def said(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def number(self) -> int:
        """Of the segment that is shipped now."""
        file = self.folder / "shipped"
        return int(file.read_text() or 1) if file.exists() else 1

    def taken(self) -> bytes:
        """What the bucket has, in its order."""
        return b"".join(path.read_bytes() for path in sorted((self.folder / "taken/f/console").glob("*")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bucket.sh").write_text(BUCKET_SH)
    return tmp_path


@pytest.fixture
def ship(folder: Path) -> Iterator[Callable[[], Shipping]]:
    begun: list[Shipping] = []

    def begin() -> Shipping:
        begun.append(Shipping(folder))
        return begun[-1]

    yield begin
    for one in begun:
        one.kill()


def on_disk(file: Path) -> int:
    return file.stat().st_blocks * 512


def test_what_is_shipped_goes_from_the_disk_and_the_bucket_has_it_byte_by_byte(
    folder: Path, ship: Callable[[], Shipping]
) -> None:
    text = b"".join(b"line %07d\n" % n for n in range(300_000))  # 13.7 segments
    (folder / "console.log").write_bytes(text)
    shipping = ship()
    wait_until(lambda: len(shipping.taken()) == len(text))
    shipping.stop()
    with shipping.console.open("ab") as file:
        file.write(b"after a restart\n")
    again = ship()
    wait_until(lambda: again.taken().endswith(b"after a restart\n"))
    again.stop()
    assert again.taken() == text + b"after a restart\n"
    assert again.number == len(text) // SEGMENT + 1
    assert shipping.console.stat().st_size == len(again.taken())
    assert on_disk(shipping.console) <= 2 * SEGMENT
    assert again.said == ""


def test_a_bucket_that_is_away_for_long_costs_the_oldest_lines_and_not_the_disk(
    folder: Path, ship: Callable[[], Shipping]
) -> None:
    console = folder / "console.log"
    console.write_bytes(b"the boot\n" * (2 * SEGMENT // 9))
    os.truncate(console, MOST_BYTES)
    with console.open("ab") as file:
        file.write(b"one more\n")
    (folder / "bucket-is-away").touch()
    shipping = ship()
    wait_until(lambda: shipping.number > 1)
    assert shipping.number == 1 + MOST_BYTES // 2 // SEGMENT
    assert f"{MOST_BYTES // 2} bytes of the console are lost" in shipping.said
    assert on_disk(console) <= SEGMENT
    (folder / "bucket-is-away").unlink()
    shipping.stop()
    assert shipping.taken().endswith(b"one more\n")
    assert len(shipping.taken()) == MOST_BYTES // 2 + len(b"one more\n")


# --- the last word ---------------------------------------------------------------------------------------------------


@pytest.fixture
def last_word(folder: Path) -> Callable[..., dict[str, object] | None]:
    """exit.json after the container has ended so, None where another start is to come."""
    programs = folder / "bin"
    programs.mkdir()
    for name, text in (("docker", DOCKER), ("systemctl", SYSTEMCTL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def end(code: int, console: str, restarts: int = 2) -> dict[str, object] | None:
        for name, value in (("code", code), ("restarts", restarts), ("console.log", console)):
            (folder / name).write_text(f"{value}\n" if isinstance(value, int) else value)
        path = f"{programs}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "STATE_DIRECTORY": str(folder), "FOLDER": "f"}
        subprocess.run(["bash", FOLDER / "ended.sh"], env=env, check=True, timeout=60, stdout=subprocess.DEVNULL)
        word = folder / "taken/f/exit.json"
        assert (folder / "powered-off").exists() == word.exists()
        return json.loads(word.read_text()) if word.exists() else None

    return end


SAID = """starting
error: of the start before
baton: the container ended with 76 (exit): of the start before
error: not this one
error: the judge at https://judge has been away for 600 s. "Try" \\ again\x1b[2J later.
  look at its logs
"""


def test_the_last_word_of_a_vm_says_why(last_word: Callable[..., dict[str, object] | None]) -> None:
    word = last_word(76, SAID)
    assert word is not None
    assert (word["exit_code"], word["reason"]) == (76, "exit")
    assert word["detail"] == 'the judge at https://judge has been away for 600 s. "Try" \\ again [2J later.'


@pytest.mark.parametrize(
    ("code", "console"),
    [(0, SAID), (75, SAID), (3, "starting\n"), (1, SAID.partition("error: not")[0]), (2, "x" * 200_000)],
)
def test_the_last_word_makes_nothing_up(
    last_word: Callable[..., dict[str, object] | None], code: int, console: str
) -> None:
    word = last_word(code, console)
    assert word is not None
    assert (word["exit_code"], word["detail"]) == (code, "")


def test_a_last_word_of_any_length_fits(last_word: Callable[..., dict[str, object] | None]) -> None:
    word = last_word(3, "error: " + "x" * 60_000 + "\n")
    assert word is not None
    assert word["detail"] == "x" * 500


def test_an_end_that_another_start_may_mend_is_no_last_word(last_word: Callable[..., dict[str, object] | None]) -> None:
    assert last_word(76, SAID, restarts=1) is None
    assert last_word(1, SAID, restarts=0) is None
