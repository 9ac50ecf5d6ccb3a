"""The whole local cloud in one process: Compute Engine, Cloud Storage, Secret Manager, the VMs, and who may do what."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from infra.localcloud import storage
from infra.localcloud.callers import Callers, Guests
from infra.localcloud.compute.dispatch import Dispatch
from infra.localcloud.compute.server import running
from infra.localcloud.compute.timers import Timings
from infra.localcloud.errors import Refusal
from infra.localcloud.messages import Request, Response, refused
from infra.localcloud.secret_manager.api import SecretManager
from infra.localcloud.secret_manager.store import Store
from infra.localcloud.server import serving
from infra.localcloud.vm.machines import Machines
from job.errors import UsageError

BUCKET_REGION = "us-central1"
HANDS_S = 30.0  # what is being done to machines when the end comes, is done by then
T = TypeVar("T")


@dataclass(frozen=True)
class LocalCloud:
    """A cloud that runs."""

    compute_url: str
    secrets_url: str
    storage: storage.StorageServer
    machines: Machines
    dispatch: Dispatch
    project: str
    bucket: str
    """Is there from the start."""

    def addresses(self) -> dict[str, str]:
        """For whoever is to use it."""
        return {
            "compute_url": self.compute_url,
            "storage_url": self.storage.url,
            "secrets_url": self.secrets_url,
            "project": self.project,
            "bucket": self.bucket,
        }


class _NoGuestsYet:
    """Until the first VM can be there."""

    def owns_peer(self, port: int) -> str | None:
        return None

    def is_cut(self, port: int) -> bool:
        return False


class _Later:
    """Stands for what is made after the servers, because it has to know where they are."""

    def __init__(self) -> None:
        self.guests: Guests = _NoGuestsYet()
        self.dispatch: Dispatch | None = None
        self.secret_manager: SecretManager | None = None

    def owns_peer(self, port: int) -> str | None:
        """The VM that has this port."""
        return self.guests.owns_peer(port)

    def is_cut(self, port: int) -> bool:
        """Whether a VM without network has this port."""
        return self.guests.is_cut(port)

    def answer(self, request: Request) -> Response:
        """Of the Compute Engine, as long as there is one."""
        return _starting(request) if self.dispatch is None else self.dispatch.answer(request)

    def secrets(self, request: Request) -> Response:
        """Of Secret Manager, as long as there is one."""
        return _starting(request) if self.secret_manager is None else self.secret_manager.answer(request)


def _starting(request: Request) -> Response:
    request.body.drain()
    return refused(Refusal(503, "backendError", "The local cloud is starting, or ending."))


@contextmanager
def local_cloud(
    home: Path,
    *,
    project: str,
    scale: float = 1.0,
    ports: tuple[int, int, int] = (0, 0, 0),
    image_env: Mapping[str, str] | None = None,
    pull_s: float = 0.0,
    shutdown: Callable[[], None] = lambda: None,
) -> Iterator[LocalCloud]:
    """A cloud until the end of the block, with the state that is in `home`; then no process of it is left.

    `scale`: how many times faster than in Google Cloud things take their time. `ports`: of Compute Engine, Cloud
    Storage and Secret Manager; others where these are taken. `pull_s`: what `docker pull` takes. `shutdown`: what the
    order to end calls.
    """
    bucket = f"{project}-runs"
    later, token, policy = _Later(), secrets.token_urlsafe(32), home / "policy.json"
    if not policy.exists():
        policy.touch(0o600)
        policy.write_text(json.dumps({"accounts": {}, "tokens": {}}))
    with ExitStack() as stack:
        store = _at_port(
            stack,
            ports[1],
            lambda port: storage.start(home / "storage", port=port, policy=policy, callers=Callers(later, token)),
        )
        compute_url = _at_port(stack, ports[0], lambda port: serving(later.answer, port=port))
        secrets_url = _at_port(stack, ports[2], lambda port: serving(later.secrets, port=port))
        machines = Machines(
            home / "vms",
            project=project,
            storage_url=store.url,
            compute_url=f"{compute_url}/compute/v1/",
            secrets_url=f"{secrets_url}/",
            policy=policy,
            bucket=bucket,
            image_env=image_env,
            scale=scale,
            pull_s=pull_s,
        )
        stack.callback(machines.close)
        later.guests = machines
        later.secret_manager = SecretManager(
            Store(home / "secrets.json"), Callers(machines, token), machines.token_account, project
        )
        dispatch = stack.enter_context(
            running(
                home / "compute",
                machines,
                project=project,
                laptop_token=token,
                timings=Timings().scaled(scale),
                shutdown=shutdown,
            )
        )
        stack.callback(dispatch.service.life.hands.wait, HANDS_S)
        later.dispatch = dispatch
        store.make_bucket(bucket, BUCKET_REGION)
        try:
            yield LocalCloud(compute_url, secrets_url, store, machines, dispatch, project, bucket)
        finally:
            later.dispatch = None
            dispatch.stop()


def _at_port(stack: ExitStack, port: int, make: Callable[[int], AbstractContextManager[T]]) -> T:
    """What is served at this port, or at a free one."""
    try:
        return stack.enter_context(make(port))
    except UsageError:
        if not port:
            raise
        return stack.enter_context(make(0))
