"""What the server must know after a SIGKILL: one JSON line per change, read again at the next start.

A line is written with one call, so a killed server leaves whole lines; a torn last one is a change that was never
answered for, and is left out.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Journal:
    """The list of changes at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def read(self) -> Iterator[Entry]:
        """All changes so far, oldest first."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def restart(self, entries: Iterable[Entry]) -> None:
        """Begins anew with what leads to the present state, then takes more."""
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.writelines(_line(entry) for entry in entries)
        fresh.replace(self._path)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def add(self, entry: Entry) -> None:
        """One more change: when this returns, the server's death does not undo it."""
        os.write(self._fd, _line(entry))

    def close(self) -> None:
        """Takes no more."""
        os.close(self._fd)


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"
