"""What a bucket was asked for, as the service bills it."""

import threading
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

Class = Literal["a", "b", "free"]
"""Cloud Storage's classes of operations: writes and lists, reads, and those that cost nothing (deletes)."""


class Usage(BaseModel):
    """Operations by class, and bytes both ways; tries that failed are in it, since they are billed too."""

    model_config = ConfigDict(frozen=True)

    class_a: int = 0
    class_b: int = 0
    free: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0

    def __add__(self, other: Self) -> "Usage":
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields})

    def __sub__(self, other: Self) -> "Usage":
        return Usage(**{name: getattr(self, name) - getattr(other, name) for name in type(self).model_fields})

    @property
    def operations(self) -> int:
        """Of all classes."""
        return self.class_a + self.class_b + self.free


class Meter:
    """Counts. From any thread."""

    def __init__(self) -> None:
        self._usage = Usage()
        self._lock = threading.Lock()

    @property
    def usage(self) -> Usage:
        """Everything so far."""
        return self._usage

    def count(self, kind: Class, *, sent_bytes: int = 0, received_bytes: int = 0) -> None:
        """One request."""
        one = Usage(
            class_a=kind == "a",
            class_b=kind == "b",
            free=kind == "free",
            sent_bytes=sent_bytes,
            received_bytes=received_bytes,
        )
        with self._lock:
            self._usage += one
