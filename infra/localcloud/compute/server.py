"""The Compute Engine server: its parts put together, and served."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.localcloud.callers import Callers
from infra.localcloud.compute.dispatch import Dispatch
from infra.localcloud.compute.faults import Faults
from infra.localcloud.compute.life import Life
from infra.localcloud.compute.machines import Machines
from infra.localcloud.compute.rights import Rights
from infra.localcloud.compute.service import Service, refuse_in_operation
from infra.localcloud.compute.timers import RealTimers, Timers, Timings
from infra.localcloud.compute.world import World
from infra.localcloud.server import serving


@dataclass(frozen=True)
class ComputeServer:
    """A server that runs."""

    url: str
    service: Service
    dispatch: Dispatch


@contextmanager
def running(
    root: Path,
    machines: Machines,
    *,
    project: str,
    laptop_token: str,
    timings: Timings | None = None,
    timers: Timers | None = None,
    shutdown: Callable[[], None] = lambda: None,
) -> Iterator[Dispatch]:
    """What answers requests, until the end of the block. What was known at the last end is known again."""
    clock = timers or RealTimers()
    root.mkdir(parents=True, exist_ok=True)
    world = World(root / "journal", clock.now)
    faults = Faults()
    life = Life(
        world,
        machines,
        clock,
        timings or Timings(),
        lambda instance: refuse_in_operation(project, world, faults, instance),
    )
    life.power_failed()
    service = Service(project, world, faults, machines, life, Rights())
    try:
        yield Dispatch(service, Callers(machines, laptop_token), laptop_token, shutdown)
    finally:
        clock.close()
        faults.stop()
        world.close()


@contextmanager
def start(
    root: Path,
    machines: Machines,
    *,
    project: str,
    port: int = 0,
    laptop_token: str | None = None,
    timings: Timings | None = None,
    timers: Timers | None = None,
) -> Iterator[ComputeServer]:
    """Serves until the end of the block."""
    token = laptop_token or secrets.token_urlsafe(32)
    with (
        running(root, machines, project=project, laptop_token=token, timings=timings, timers=timers) as dispatch,
        serving(dispatch.answer, port=port, stop=dispatch.stop) as url,
    ):
        yield ComputeServer(url, dispatch.service, dispatch)
