"""Which process tree a connection on this machine belongs to, as the kernel has it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def root_of_port(port: int, roots: Iterable[int]) -> int | None:
    """The root (a pid) of the tree with a process that has this port of 127.0.0.1 as its end; None for another's."""
    inodes = set(_inodes(port))
    if not inodes:
        return None
    parents = dict(_parents())
    wanted = set(roots)
    for pid in parents:
        root = _root(pid, parents, wanted)
        if root is not None and _holds(pid, inodes):
            return root
    return None


def _inodes(port: int) -> Iterator[str]:
    """Of the sockets that have this port of the loopback address."""
    ends = tuple(f"{address}:{port:04X}" for address in ("0100007F", "0000000000000000FFFF00000100007F"))
    for table in TABLES:
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for line in lines:
            fields = line.split()
            if fields[1] in ends and fields[9] != "0":
                yield fields[9]


def _parents() -> Iterator[tuple[int, int]]:
    """(pid, its parent's) of every process."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                yield int(folder.name), int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
            except OSError:
                continue  # it has ended


def _root(pid: int, parents: dict[int, int], wanted: set[int]) -> int | None:
    while pid not in wanted:
        if pid not in parents:
            return None
        pid = parents[pid]
    return pid


def _holds(pid: int, inodes: set[str]) -> bool:
    try:
        links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False  # it has ended, or closes files just now
    return any(link.startswith("socket:[") and link[8:-1] in inodes for link in links)
