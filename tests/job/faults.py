"""A bucket in which a chosen call fails: before it does anything, or after it did everything and the reply is lost."""

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from job.errors import Transient
from job.storage import Bucket, Data, ObjectInfo
from job.storage.usage import Usage

T = TypeVar("T")


class Killed(BaseException):
    """Stands for the death of the process at a storage call: nothing of ours may catch it."""


class FaultyBucket:
    """Passes every call on to `inner`; `fault(number, name)` says what to raise, and whether before or after."""

    def __init__(self, inner: Bucket) -> None:
        self.inner = inner
        self.uri = inner.uri
        self.calls: list[tuple[str, str]] = []
        """(method, object name), in order."""
        self.before: Callable[[int, str, str], BaseException | None] = lambda number, method, name: None
        self.after: Callable[[int, str, str], BaseException | None] = lambda number, method, name: None
        self._lock = threading.Lock()

    @property
    def usage(self) -> Usage:
        return self.inner.usage

    def location(self) -> str | None:
        return self.inner.location()

    def read(self, name: str) -> tuple[bytes, ObjectInfo]:
        return self._call("read", name, lambda: self.inner.read(name))

    def read_into(self, name: str, buffer: memoryview) -> ObjectInfo:
        return self._call("read_into", name, lambda: self.inner.read_into(name, buffer))

    def stat(self, name: str) -> ObjectInfo | None:
        return self._call("stat", name, lambda: self.inner.stat(name))

    def write(self, name: str, data: Data, *, if_generation: int | None = None) -> ObjectInfo:
        return self._call("write", name, lambda: self.inner.write(name, data, if_generation=if_generation))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._call("list", prefix, lambda: self.inner.list(prefix))

    def delete(self, name: str, *, if_generation: int | None = None) -> None:
        return self._call("delete", name, lambda: self.inner.delete(name, if_generation=if_generation))

    def lose_replies(self, count: int, method: str = "write") -> None:
        """The next `count` calls of a method do their work, and then their reply is lost."""
        left = [Transient("the reply was lost") for _ in range(count)]
        self.after = lambda number, called, name: left.pop() if called == method and left else None

    def refuse(self, count: int, method: str = "write") -> None:
        """The next `count` calls of a method fail without having done anything."""
        left = [Transient("not to be reached") for _ in range(count)]
        self.before = lambda number, called, name: left.pop() if called == method and left else None

    def die_at(self, number: int, *, after: bool) -> None:
        """The process dies at its call `number` from now on (from 0), before or after it had its effect."""
        number += len(self.calls)

        def die(at: int, method: str, name: str) -> BaseException | None:
            return Killed(f"{method} {name}") if at == number else None

        if after:
            self.after = die
        else:
            self.before = die

    def _call(self, method: str, name: str, work: Callable[[], T]) -> T:
        with self._lock:
            number = len(self.calls)
            self.calls.append((method, name))
        if (error := self.before(number, method, name)) is not None:
            raise error
        result = work()
        if (error := self.after(number, method, name)) is not None:
            raise error
        return result
