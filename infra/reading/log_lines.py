"""The lines of an attempt, from two witnesses: the agent's own log, with times, and the VM's console, which has the
boot, what the kernel said, and most of what the agent said once more."""

import json
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import merge
from typing import Literal

from job.run.console import vm_phases
from job.views.text import printable

LOGS, CONSOLE = "logs/", "console/"


@dataclass(frozen=True)
class LogLine:
    """One line as it was written; hostile until it is made printable."""

    attempt: int
    at_s: float
    """Seconds since the epoch; of most lines of the console only the time of what stands before them."""
    source: Literal["agent", "console"]
    text: str
    timed: bool = True
    """Whether it was written then, and not at some time after it."""

    @property
    def shown(self) -> str:
        """As a console shows it; by this both witnesses are compared."""
        return _shown(self.text)


class LogJoin:
    """Joins what arrives of an attempt, in any pieces.

    Each line comes out once, by time as far as times are known. One of which both witnesses tell is known by its text:
    whichever comes second is left out.
    """

    def __init__(self, attempt: int) -> None:
        self._attempt = attempt
        self._rows: dict[str, int] = {}
        """Rows taken of each segment of the log."""
        self._bytes: dict[str, int] = {}
        """Bytes taken of each object of the console."""
        self._cut = b""
        """The beginning of a console's line whose end has not arrived."""
        self._console_at_s = 0.0
        self._unmatched: Counter[tuple[str, str]] = Counter()
        """(witness, line) of lines that the other one has not told of yet."""

    def add(self, objects: Mapping[str, bytes], *, last: bool = False) -> list[LogLine]:
        """The lines that are new, of objects by their names in the attempt's folder. `last`: an unfinished line of the
        console is one too."""
        rows = self._agent_lines(objects)
        times: defaultdict[str, deque[float]] = defaultdict(deque)
        for row in rows:
            times[row.shown].append(row.at_s)
        console = self._console_lines(objects, times, last=last)
        return [*merge(self._once(rows), self._once(console), key=lambda line: line.at_s)]

    def _once(self, lines: Iterable[LogLine]) -> list[LogLine]:
        """Those lines that the other witness has not told of before."""
        kept = []
        for line in lines:
            other = "console" if line.source == "agent" else "agent"
            if self._unmatched[other, line.shown] > 0:
                self._unmatched[other, line.shown] -= 1
            else:
                self._unmatched[line.source, line.shown] += 1
                kept.append(line)
        return kept

    def _agent_lines(self, objects: Mapping[str, bytes]) -> list[LogLine]:
        """New rows of the segments, which are only added to; a damaged one is left out."""
        found, at_s = [], 0.0
        for name in sorted(name for name in objects if name.startswith(LOGS)):
            lines = objects[name].splitlines()
            before, self._rows[name] = self._rows.get(name, 0), len(lines)
            for line in lines[before:]:
                try:
                    fields = json.loads(line)
                except ValueError:
                    continue
                if not isinstance(fields, dict) or not isinstance(text := fields.get("line"), str):
                    continue
                told = fields.get("at_s")
                at_s = max(at_s, float(told)) if isinstance(told, int | float) else at_s
                found += [LogLine(self._attempt, at_s, "agent", part) for part in text.splitlines()]
        return found

    def _console_lines(
        self, objects: Mapping[str, bytes], times: Mapping[str, deque[float]], *, last: bool
    ) -> list[LogLine]:
        """New lines of the console, whose objects are one stream, cut anywhere. Their times are those of the phases
        and of the agent's lines among them."""
        stream = self._cut
        for name in sorted(name for name in objects if name.startswith(CONSOLE)):
            stream += objects[name][self._bytes.get(name, 0) :]
            self._bytes[name] = len(objects[name])
        end = len(stream) if last else stream.rfind(b"\n") + 1
        self._cut, found = stream[end:], []
        for text in stream[:end].decode(errors="replace").splitlines():
            known = [phase.at_s for phase in vm_phases(text)]
            if queue := times.get(_shown(text)):
                known.append(queue.popleft())
            self._console_at_s = max(self._console_at_s, *known, 0.0)
            found.append(LogLine(self._attempt, self._console_at_s, "console", text, timed=bool(known)))
        return found


def _shown(text: str) -> str:
    return printable(text.rstrip())
