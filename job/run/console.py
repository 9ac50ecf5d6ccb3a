"""What a VM prints from the first line of its boot on, as its unit ships it: text, in numbered objects."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from job.run.layout import console_folder
from job.storage import Bucket, NotFound

PHASE = re.compile(r"^baton-phase (?P<name>[a-z][a-z-]{0,30}) (?P<at>\d{9,11}(?:\.\d{1,9})?)\s*$", re.MULTILINE)
FIRST = "000001.log"
"""Of a VM's console; its boot is in it."""


class VmPhase(NamedTuple):
    """A phase of a VM's boot, by the VM's clock."""

    name: str
    """boot, driver, pull, container."""
    at_s: float
    """When it began, seconds since the epoch."""


def vm_phases(text: str) -> tuple[VmPhase, ...]:
    """The phases that a console tells of, each where it began first; pure. A VM may write nonsense: what is not
    understood is left out."""
    found: dict[str, VmPhase] = {}
    for match in PHASE.finditer(text):
        found.setdefault(match["name"], VmPhase(match["name"], float(match["at"])))
    return tuple(sorted(found.values(), key=lambda phase: phase.at_s))


def read_phases(bucket: Bucket, attempt: int) -> tuple[VmPhase, ...]:
    """The boot phases of an attempt's VM; none where it shipped nothing."""
    try:
        data, _ = bucket.read(f"{console_folder(attempt)}{FIRST}")
    except NotFound:
        return ()
    return vm_phases(data.decode(errors="replace"))


def console_names(names: Iterable[str], attempt: int) -> list[str]:
    """Of `names` the objects of an attempt's console, in order; pure."""
    folder = console_folder(attempt)
    return sorted(name for name in names if name.startswith(folder) and name.endswith(".log"))
