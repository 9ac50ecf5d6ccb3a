"""Several pieces of work at once, in threads that die with the process: a stalled transfer keeps no exit waiting."""

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def in_parallel(jobs: Iterable[Callable[[], T]], streams: int) -> list[T]:
    """The results of the jobs in their order. `streams` run at once, and about as many are taken ahead.

    The first error ends it: what runs is waited for, nothing more is begun, and the error is raised.
    """
    waiting: queue.Queue[tuple[int, Callable[[], T]] | None] = queue.Queue(maxsize=1)
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def work() -> None:
        while (item := waiting.get()) is not None:
            if errors:
                continue  # whoever puts them must never wait for nobody
            try:
                results[item[0]] = item[1]()
            except BaseException as error:  # handed to the caller below
                errors.append(error)

    threads: list[threading.Thread] = []
    try:
        for number, job in enumerate(jobs):
            if errors:
                break
            if len(threads) < streams:
                threads.append(threading.Thread(target=work, daemon=True, name="transfer"))
                threads[-1].start()
            waiting.put((number, job))
    finally:
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in sorted(results)]
