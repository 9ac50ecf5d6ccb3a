"""A watchdog of a story: the real one, in a process of its own, for whom seconds are minutes.

python -m tests.story.impatient URI [NAME=SECONDS...]    (names of infra.watch.observed.Policy)
"""

import sys
from collections.abc import Sequence

from infra.watch.observed import Policy
from infra.watch.process import go_on, until_signalled, watch_runs

LOOK_S = 0.3
MINUTE_S = 2.0
"""Heartbeats of the stories come every half second, those of users every ten: a minute of theirs is that long here."""


def main(uri: str, changes: Sequence[str]) -> None:
    """Watches until the run is over and nothing of it is left."""
    given = {name: float(value) for name, _, value in (change.partition("=") for change in changes)}
    policy = Policy(**{"silent_s": 3 * MINUTE_S, "doubt_s": MINUTE_S, "leave_s": 2 * MINUTE_S} | given)  # type: ignore[arg-type]
    watchdog = watch_runs([uri], interval_s=LOOK_S, policy=policy)
    with until_signalled() as stopping:
        go_on(watchdog, watchdog.is_over, stopping)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
