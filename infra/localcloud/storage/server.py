"""The Cloud Storage server: its parts put together, and served."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.localcloud.callers import Callers
from infra.localcloud.folder import own_folder
from infra.localcloud.server import serving
from infra.localcloud.storage.accounting import Accounting
from infra.localcloud.storage.dispatch import Dispatch
from infra.localcloud.storage.faults import Faults
from infra.localcloud.storage.messages import Request
from infra.localcloud.storage.objects import Store
from infra.localcloud.storage.policy import Gate
from infra.localcloud.storage.service import Service
from infra.localcloud.storage.uploads import Uploads


@dataclass(frozen=True)
class StorageServer:
    """A server that runs."""

    url: str
    faults: Faults
    accounting: Accounting
    store: Store

    def make_bucket(self, name: str, location: str = "US") -> None:
        """A bucket, unless it is there already."""
        if all(fields["name"] != name for fields in self.store.buckets()):
            self.store.create_bucket(name, {"location": location})


@contextmanager
def start(
    root: Path | None = None,
    *,
    port: int = 0,
    policy: Path | None = None,
    keep_bytes: bool = True,
    now: Callable[[], float] = time.time,
    callers: Callers | None = None,
    also_user: int | None = None,
) -> Iterator[StorageServer]:
    """Serves until the end of the block. Without a root all is gone then; with one it is there at the next start.

    `callers` tells VMs from the person at the laptop; without it whoever sends no token is `anonymous`.
    `also_user` is answered like this process's own.

    Raises UsageError for a root that is not this server's own, and for a port that is taken.
    """
    with own_folder(root) as folder:
        store = Store(folder, keep_bytes=keep_bytes, now=now)
        faults, accounting = Faults(), Accounting()
        dispatch = Dispatch(Service(store, Uploads(store), Gate(policy, now)), faults, accounting, callers)
        try:
            with serving(
                dispatch.answer,
                port=port,
                request_type=Request,
                now=now,
                name="UploadServer",
                stop=faults.stop,
                also_user=also_user,
            ) as url:
                yield StorageServer(url, faults, accounting, store)
        finally:
            store.close()
