"""Production code, one storage call at a time: a tree of what it asks for next, by the answers that it got so far.

An operation of a writer runs in a greenlet that stands still at every call, until somebody gives it an answer. So two
writers can be stepped in any order, and a crash is an operation that nobody answers any more. What it does after the
same answers is remembered, not run again; where the search comes back to a call to give another answer, or its
greenlet was given up, the operation is run once more from its beginning. Everything else that production code asks the
world for (random numbers, time, threads) is made a function of the same answers.
"""

import collections
import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar
from unittest import mock

import greenlet

from job.errors import BatonError, Transient
from job.storage import Data, NotFound, ObjectInfo, PreconditionFailed
from job.storage.chunks import chunks
from job.storage.usage import Usage

from .bucket import Reply, Request

MOST_CALLS = 150
"""An operation that makes more is caught in a loop: the longest makes 40."""
MOST_LIVE = 5000
"""Greenlets that are kept; each holds a stack."""

RAISED: dict[str, Callable[[], Exception]] = {
    "Transient": lambda: Transient("not to be reached"),
    "NotFound": lambda: NotFound("gone"),
    "PreconditionFailed": lambda: PreconditionFailed("another generation"),
}


class Endless(BaseException):
    """The operation makes call after call."""


class Port:
    """The bucket that production code sees: answers what is known, then stops it until there is one more answer."""

    uri = "model://run"
    usage = Usage()

    def __init__(self, asked: tuple[Request, ...], replies: tuple[Reply, ...]) -> None:
        self.asked, self.replies = asked, replies
        self.calls = 0

    def read(self, name: str) -> tuple[bytes, ObjectInfo]:
        reply = self._call(Request("read", name))
        return reply.data, reply.infos[0]

    def read_into(self, name: str, buffer: memoryview) -> ObjectInfo:
        reply = self._call(Request("read_into", name))
        if len(reply.data) != len(buffer):
            raise ValueError(f"{name} has {len(reply.data)} bytes")
        buffer[:] = reply.data
        return reply.infos[0]

    def stat(self, name: str) -> ObjectInfo | None:
        return next(iter(self._call(Request("stat", name)).infos), None)

    def write(self, name: str, data: Data, *, if_generation: int | None = None) -> ObjectInfo:
        return self._call(Request("write", name, b"".join(chunks(data)), if_generation)).infos[0]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from self._call(Request("list", prefix)).infos

    def delete(self, name: str, *, if_generation: int | None = None) -> None:
        self._call(Request("delete", name, b"", if_generation))

    def _call(self, request: Request) -> Reply:
        at, self.calls = self.calls, self.calls + 1
        if at >= MOST_CALLS:
            raise Endless
        if at < len(self.replies):
            assert request == self.asked[at], f"not deterministic: {request} instead of {self.asked[at]}"
            reply = self.replies[at]
        else:
            waits_for = greenlet.getcurrent().parent
            assert waits_for is not None, "called from another thread: see deterministic()"
            reply = waits_for.switch(request)
        if reply.error is not None:
            raise RAISED[reply.error]()
        return reply


@dataclass(frozen=True)
class Outcome:
    """How an operation ended."""

    kind: str
    """ok, or the name of the error that production code raised; bug for one that is no BatonError."""
    words: str = ""
    step: int | None = None
    """Of what was restored, where something was."""
    quarantined: tuple[str, ...] = ()
    """Folders that were found bad."""


Operation = Callable[[Port, Any], tuple[Any, Outcome]]
"""Runs production code for a writer; returns the writer afterwards."""


class Node:
    """An operation under way: what it asks for next, or how it ended."""

    numbers: ClassVar[Iterator[int]] = itertools.count(1)
    live: ClassVar[collections.OrderedDict[int, "Node"]] = collections.OrderedDict()
    """Those whose production code stands at its call and waits; the oldest are given up."""

    def __init__(
        self,
        writer: Any,
        name: str,
        work: Operation,
        asked: tuple[Request, ...] = (),
        replies: tuple[Reply, ...] = (),
        running: "_Running | None" = None,
    ) -> None:
        self.writer, self.name, self.work = writer, name, work
        self.asked, self.replies = asked, replies
        self.number = next(Node.numbers)
        self.children: dict[Reply, Node] = {}
        self.request: Request | None = None
        self.after: Any = None
        """The writer when it has ended."""
        self.outcome: Outcome | None = None
        if running is None:
            running, reply = _Running(work, writer, Port(asked, replies)), None
        else:
            reply = replies[-1]
        found = running.go_on(reply)
        if isinstance(found, Request):
            self.request, self.running = found, running
            Node.live[self.number] = self
            if len(Node.live) > MOST_LIVE:
                Node.live.popitem(last=False)[1].running = None
        else:
            self.after, self.outcome = found

    def step(self, reply: Reply) -> "Node":
        """The same operation with one more answer."""
        if (child := self.children.get(reply)) is None:
            assert self.request is not None
            running, self.running = self.running, None
            Node.live.pop(self.number, None)
            asked, replies = (*self.asked, self.request), (*self.replies, reply)
            child = self.children[reply] = Node(self.writer, self.name, self.work, asked, replies, running)
        return child


class _Running:
    """Production code in a greenlet, which stands still while it waits for an answer."""

    def __init__(self, work: Operation, writer: Any, port: Port) -> None:
        self.random = _Random(writer)
        self.greenlet = greenlet.greenlet(lambda: _ended(work, writer, port))

    def go_on(self, reply: Reply | None) -> Any:
        """What it asks for next, or (writer afterwards, outcome)."""
        RANDOM.of = self.random
        self.greenlet.parent = greenlet.getcurrent()
        return self.greenlet.switch() if reply is None else self.greenlet.switch(reply)


def _ended(work: Operation, writer: Any, port: Port) -> tuple[Any, Outcome]:
    try:
        return work(port, writer)
    except Endless:
        return writer.dead(), Outcome("bug", "call after call, without an end")
    except BatonError as error:
        return writer.dead(for_good=True), Outcome(type(error).__name__, str(error))
    except Exception as error:
        return writer.dead(), Outcome("bug", f"{type(error).__name__}: {error}")


class _Random:
    """Numbers that differ between operations and between calls within one, the same in every run of that operation."""

    def __init__(self, writer: Any) -> None:
        self.seed = writer.slot * 1000 + writer.operations
        self.calls = 0

    def token_hex(self, count: int) -> str:
        self.calls += 1
        return f"{self.seed * 100 + self.calls:0{2 * count}x}"


class _Randoms:
    """Whose numbers are drawn now."""

    of: _Random


RANDOM = _Randoms()


class _Done:
    """A future that is there."""

    def __init__(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.error: Exception | None = None
        try:
            self.value = work(*arguments)
        except Exception as error:
            self.error = error

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class _AtOnce:
    """A pool that does the work when it is handed in."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> "_AtOnce":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *arguments: Any) -> _Done:
        return _Done(work, arguments)


class _StoppedClock:
    """The module `time` while nothing takes any."""

    def __getattr__(self, name: str) -> Callable[..., float]:
        return lambda *_: 0.0


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Production code asks the bucket, and nothing else, while this lasts."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("secrets.token_hex", lambda count: RANDOM.of.token_hex(count)))
        stack.enter_context(mock.patch("job.checkpoint.restore.ThreadPoolExecutor", _AtOnce))
        stack.enter_context(mock.patch("job.agent.uploader.RETRY_WAIT_MAX_S", 0.0))
        # The report only reads, and takes longer than everything else together.
        stack.enter_context(mock.patch("job.agent.result.finished_report"))
        stack.enter_context(mock.patch("job.agent.result.render", return_value="the report"))
        for module in (
            "tenacity.nap",
            "job.run.claims",
            "job.run.heartbeat",
            "job.agent.journal",
            "job.agent.uploader",
        ):
            stack.enter_context(mock.patch(f"{module}.time", _StoppedClock()))
        yield
