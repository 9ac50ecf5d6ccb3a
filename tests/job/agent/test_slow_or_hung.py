"""Proves what counts as progress of a trainer that says nothing: bytes that it reads and writes."""

import subprocess
import sys
from pathlib import Path

from job.agent.hang import bytes_moved, io_bytes

IO = """\
rchar: 1000
wchar: 200
syscr: 7
syscw: 3
read_bytes: 30
write_bytes: 4096
cancelled_write_bytes: 0
"""


def test_bytes_through_system_calls_and_of_mapped_files_count_once_written_ones_not_again() -> None:
    assert io_bytes(IO) == 1230


def test_a_kernel_that_tells_nothing_is_no_progress() -> None:
    assert io_bytes("") == 0
    assert bytes_moved(None) == 0


def test_what_a_process_reads_shows_and_what_it_computes_does_not(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(1 << 20))
    code = f"""
import os
for line in iter(input, "end"):
    if line == "read":
        os.read(os.open({str(tmp_path / "weights")!r}, os.O_RDONLY), 1 << 20)
    else:
        sum(range(10_000))
    print("done", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as process:

        def moved_by(order: str) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            before = bytes_moved(process.pid)
            process.stdin.write(f"{order}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
            return bytes_moved(process.pid) - before

        moved_by("compute")  # its imports are over
        assert moved_by("read") >= 1 << 20
        assert moved_by("compute") < 1 << 16
        process.communicate("end\n")
