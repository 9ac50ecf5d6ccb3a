"""The agent's main thread: serves events, and waits for things while it serves them."""

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

from job.errors import Preempted
from job.preemption import Notice

T = TypeVar("T")
Heed = Literal["any", "immediate", "never"]


class Loop:
    """Handlers run on the main thread, one at a time; slow work runs in threads that the loop waits for.

    A wait ends with Preempted as soon as there is a notice that it heeds: any, only one that means now, or none.
    """

    def __init__(self, notice: Notice) -> None:
        self.notice = notice
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._drain)

    def listen(self, fd: int, handler: Callable[[], None]) -> None:
        """Calls `handler` whenever `fd` is readable."""
        self._selector.register(fd, selectors.EVENT_READ, handler)

    def forget(self, fd: int) -> None:
        """Stops listening to `fd`."""
        self._selector.unregister(fd)

    def wake(self) -> None:
        """Makes the loop look at its conditions again. From any thread."""
        with contextlib.suppress(BlockingIOError):  # full: the loop is going to wake anyway
            self._wake_writer.send(b"w")

    def until(self, condition: Callable[[], bool], *, timeout_s: float | None = None, heed: Heed = "any") -> bool:
        """Serves events until the condition holds: True, or until the time is over: False. Raises Preempted."""
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            deadline = self.notice.deadline
            if deadline is not None and (heed == "any" or (heed == "immediate" and deadline.immediate)):
                raise Preempted(f"stopped on {deadline.reason}.")
            if condition():
                return True
            left_s = None if end_s is None else end_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            for key, _ in self._selector.select(left_s):
                key.data()

    def call(self, work: Callable[[], T], *, heed: Heed = "any") -> T:
        """The result of `work`, done in a thread while events are served; its exception is raised here.

        On a notice the thread is left behind: what it does must be safe to abandon anywhere.
        """
        job = Job(work, self.wake)
        self.until(lambda: job.done, heed=heed)
        return job.result()

    def _drain(self) -> None:
        os.read(self._wake_reader.fileno(), 4096)


class Job(Generic[T]):
    """Work in a daemon thread, with its result or its exception."""

    def __init__(self, work: Callable[[], T], finished: Callable[[], None]) -> None:
        self.done = False
        self._work, self._finished = work, finished
        self._result: T | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def result(self) -> T:
        """What the work returned. Only once it is done."""
        assert self.done
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # set by _run, T may itself be None

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # handed to the main thread, which raises it
            self._error = error
        self.done = True
        self._finished()
