"""A bucket as a value: every write makes another one, equal ones are the same object, and calls on it can go wrong."""

from collections.abc import Mapping
from enum import IntEnum
from functools import cache
from typing import ClassVar, NamedTuple

import google_crc32c

from job.storage import ObjectInfo

HEAD = "head.json"
LATE = -1


class Request(NamedTuple):
    """One call of a bucket's method, before anybody has answered it."""

    method: str
    name: str
    data: bytes = b""
    if_generation: int | None = None

    @property
    def changes(self) -> bool:
        """Whether the bucket is another one afterwards."""
        return self.method in ("write", "delete")

    def __str__(self) -> str:
        condition = "" if self.if_generation is None else f" if generation {self.if_generation}"
        return f"{self.method} {self.name}{condition}"


class Reply(NamedTuple):
    """What a call returns, or the name of the exception that it raises."""

    error: str | None = None
    data: bytes = b""
    infos: tuple[ObjectInfo, ...] = ()


TROUBLE = Reply("Transient")


class Stored(NamedTuple):
    """One object. `damaged` and `by` are the model's own: no call tells them."""

    generation: int
    data: bytes
    damaged: bool = False
    """The bucket holds other bytes than it was given, and does not know."""
    by: int = 0
    """Which process wrote it; kept of head only, so that equal buckets stay equal. LATE: long ago."""


class Fault(IntEnum):
    """What can go wrong with one call, beside the death of the caller."""

    NONE = 0
    CUT = 1
    """It never arrives; the caller hears of trouble."""
    LOST = 2
    """It takes effect, the caller hears of trouble."""
    LATE = 3
    """The caller hears of trouble; it arrives at any time later, or never."""
    TWICE = 4
    """It takes effect twice; the caller gets the second answer."""
    AGAIN = 5
    """It takes effect and is answered, then once more at any time later."""
    TORN = 6
    """A file of a checkpoint is stored with zeros for its second half, and answered as if it were whole."""


def faults_of(request: Request) -> tuple[Fault, ...]:
    """The faults that make a difference for this call."""
    if not request.changes:
        return (Fault.CUT,)
    found = [Fault.CUT, Fault.LOST, Fault.LATE]
    # What has changed its object once finds another generation the second time.
    found.append(Fault.AGAIN if request.if_generation is None else Fault.TWICE)
    if request.method == "write" and request.name.startswith("checkpoints/"):
        found.append(Fault.TORN)
    return tuple(found)


class Bucket:
    """The objects of a run at one moment. Use `Bucket.of`: equal contents are one object, with one number."""

    known: ClassVar[dict[frozenset[tuple[str, Stored]], "Bucket"]] = {}
    numbers: ClassVar[int] = 0

    def __init__(self, objects: Mapping[str, Stored]) -> None:
        self.objects = objects
        self.moves: dict[int, object] = {}
        """Kept here by the search, so that it ends with the bucket."""
        Bucket.numbers += 1
        self.number = Bucket.numbers

    @classmethod
    def of(cls, objects: Mapping[str, Stored]) -> "Bucket":
        """The one bucket with these objects."""
        key = frozenset(objects.items())
        if (found := cls.known.get(key)) is None:
            found = cls.known[key] = Bucket(objects)
        return found

    def is_void(self, request: Request) -> bool:
        """Whether a call that comes late can change nothing any more, now or ever."""
        stored = self.objects.get(request.name)
        if request.method == "delete":
            return stored is None  # names are not used again
        return bool(request.if_generation) and (stored is None or stored.generation > (request.if_generation or 0))

    def answer(self, request: Request, by: int, *, torn: bool = False) -> "tuple[Bucket, Reply]":
        """The bucket after a call, and what the caller gets."""
        stored = self.objects.get(request.name)
        if request.method == "stat":
            return self, Reply(infos=(_info(request.name, stored),) if stored else ())
        if request.method == "list":
            names = sorted(name for name in self.objects if name.startswith(request.name))
            return self, Reply(infos=tuple(_info(name, self.objects[name]) for name in names))
        if request.method in ("read", "read_into"):
            if stored is None:
                return self, Reply("NotFound")
            return self, Reply(data=stored.data, infos=(_info(request.name, stored),))
        generation = 0 if stored is None else stored.generation
        if request.method == "delete" and stored is None:
            return self, Reply()
        if request.if_generation is not None and request.if_generation != generation:
            return self, Reply("PreconditionFailed")
        objects = dict(self.objects)
        if request.method == "delete":
            del objects[request.name]
            return Bucket.of(objects), Reply()
        data = _torn(request.data) if torn else request.data
        new = Stored(generation + 1, data, torn, by if by == LATE or request.name == HEAD else 0)
        objects[request.name] = new
        sent = ObjectInfo(request.name, new.generation, len(request.data), crc32c(request.data), 0.0)
        return Bucket.of(objects), Reply(infos=(sent,))


@cache
def crc32c(data: bytes) -> int:
    """CRC-32C, of few different contents again and again."""
    return int(google_crc32c.value(data))


def _torn(data: bytes) -> bytes:
    half = len(data) // 2
    torn = data[:half] + bytes(len(data) - half)
    assert torn != data, "half of it is zeros anyway: tearing would change nothing"
    return torn


def _info(name: str, stored: Stored) -> ObjectInfo:
    return ObjectInfo(name, stored.generation, len(stored.data), crc32c(stored.data), 0.0)
