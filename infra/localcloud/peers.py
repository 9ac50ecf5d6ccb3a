"""Whose the other end of a loopback connection is, as the kernel has it."""

from pathlib import Path

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
LOOPBACK_IN_IPV6 = "0000000000000000FFFF0000"


def peer_uid(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """The user whose process holds the client's end; None when no process holds it any more.

    A socket whose process is gone is listed as root's: its inode, 0, tells.
    """
    local, remote = _address(client), _address(server)
    for table, prefix in zip(TABLES, ("", LOOPBACK_IN_IPV6), strict=True):
        wanted = f" {prefix}{local} {prefix}{remote} "
        try:
            lines = Path(table).read_text()
        except FileNotFoundError:
            continue  # a kernel without IPv6
        at = lines.find(wanted)
        if at >= 0:
            fields = lines[at : lines.index("\n", at)].split()
            return int(fields[6]) if fields[8] != "0" else None
    return None


def _address(address: tuple[str, int]) -> str:
    """127.0.0.1:80 as /proc has it: the bytes of the address as a number of this machine, in hex."""
    host = "".join(f"{int(part):02X}" for part in reversed(address[0].split(".")))
    return f"{host}:{address[1]:04X}"
