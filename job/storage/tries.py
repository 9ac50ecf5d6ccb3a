"""How often something is tried that fails by the network or by the service, and how long is waited in between."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from job.errors import Transient

T = TypeVar("T")

WAIT_MAX_S = 2.0


class Again(Transient):
    """The whole of something is to be done again, not the request of it that failed last."""


@dataclass(frozen=True)
class Tries:
    """A few tries, seconds in all; then the Transient goes on."""

    count: int

    def __call__(self, work: Callable[[], T], *, on: type[Transient] = Transient) -> T:
        """The result of `work`, tried again after errors of the class `on`."""
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(on),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=WAIT_MAX_S),
            stop=tenacity.stop_after_attempt(self.count),
            reraise=True,
        )(work)
