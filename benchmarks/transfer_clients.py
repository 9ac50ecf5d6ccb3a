"""The ways to bring bytes to Cloud Storage and back that `benchmarks.transfer` holds against each other.

Each gets its source in the form that it takes best: memory, or files that lie in memory (/dev/shm). Each is used as its
own documentation says, with the parallelism that it has.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from job.storage.gcs import GcsBucket
from job.storage.parallel import in_parallel

STREAMS = 8
OBJECTS_AT_ONCE = 32
"""Of ours, when there are many: as many connections as are kept. gcsfs takes 128 by itself."""
PROJECT = "benchmark"


@dataclass(frozen=True)
class Load:
    """What is to be brought: `count` objects of the same bytes each."""

    folder: Path
    """Holds them as files."""
    data: bytes
    count: int

    @property
    def names(self) -> list[str]:
        """Of the objects, and of the files."""
        return [f"{number:04}.bin" for number in range(self.count)]

    @property
    def size_bytes(self) -> int:
        """All together."""
        return self.count * len(self.data)


@dataclass(frozen=True)
class Client:
    """One way, there and back. `down` leaves what it read for `came_back`."""

    name: str
    up: Callable[[], object]
    down: Callable[[], object]
    came_back: Callable[[], list[bytes]]


def clients(url: str, bucket: str, load: Load, scratch: Path) -> list[Client]:
    """All of them, ours first; those whose program is missing left out. STORAGE_EMULATOR_HOST is `url`."""
    found = [ours(bucket, load), plain(bucket, load), transfer_manager(bucket, load, scratch), gcsfs(url, bucket, load)]
    return [*found, gcloud(url, bucket, load, scratch)] if shutil.which("gcloud") else found


def ours(bucket: str, load: Load) -> Client:
    """As the agent saves and restores: from memory and into it."""
    # The pace of one write a second is for one name, and a benchmark writes the same ones again.
    run = GcsBucket(f"gs://{bucket}/ours", write_interval_s=0)
    buffers = [memoryview(bytearray(len(load.data))) for _ in load.names]

    def up() -> None:
        in_parallel((partial(run.write, name, load.data) for name in load.names), OBJECTS_AT_ONCE)

    def down() -> None:
        reads = (partial(run.read_into, *pair) for pair in zip(load.names, buffers, strict=True))
        in_parallel(reads, OBJECTS_AT_ONCE)

    return Client("ours", up, down, lambda: [bytes(buffer) for buffer in buffers])


def plain(bucket: str, load: Load) -> Client:
    """google-cloud-storage, one object after another."""
    there = _bucket(bucket)
    back: list[bytes] = []

    def up() -> None:
        for name in load.names:
            there.blob(f"plain/{name}").upload_from_file(BytesIO(load.data), size=len(load.data))

    def down() -> None:
        back[:] = [there.blob(f"plain/{name}").download_as_bytes() for name in load.names]

    return Client("google-cloud-storage", up, down, lambda: back)


def transfer_manager(bucket: str, load: Load, scratch: Path) -> Client:
    """The same package's transfer manager, with threads: on two cores its processes take longer to start."""
    from google.cloud.storage import transfer_manager as manager

    there = _bucket(bucket)
    threads = {"worker_type": manager.THREAD, "max_workers": STREAMS}
    back = scratch / "transfer_manager"
    back.mkdir()

    def up() -> None:
        if load.count == 1:
            blob = there.blob(f"transfer_manager/{load.names[0]}")
            manager.upload_chunks_concurrently(str(load.folder / load.names[0]), blob, **threads)
            return
        done = manager.upload_many_from_filenames(
            there,
            load.names,
            source_directory=str(load.folder),
            blob_name_prefix="transfer_manager/",
            raise_exception=True,
            **threads,
        )
        assert len(done) == load.count

    def down() -> None:
        if load.count == 1:
            blob = there.blob(f"transfer_manager/{load.names[0]}")
            manager.download_chunks_concurrently(blob, str(back / load.names[0]), **threads)
            return
        manager.download_many_to_path(
            there,
            load.names,
            destination_directory=str(back),
            blob_name_prefix="transfer_manager/",
            raise_exception=True,
            **threads,
        )

    return Client("transfer_manager", up, down, lambda: [(back / name).read_bytes() for name in load.names])


def gcsfs(url: str, bucket: str, load: Load) -> Client:
    """gcsfs from memory: it transfers many objects at once by itself."""
    from gcsfs import GCSFileSystem

    system = GCSFileSystem(project=PROJECT, token="anon", endpoint_url=url)
    paths = [f"{bucket}/gcsfs/{name}" for name in load.names]
    back: dict[str, bytes] = {}

    def up() -> None:
        system.pipe({path: load.data for path in paths})

    def down() -> None:
        back.clear()
        back.update(system.cat(paths))

    return Client("gcsfs", up, down, lambda: [back[path] for path in paths])


def gcloud(url: str, bucket: str, load: Load, scratch: Path) -> Client:
    """`gcloud storage cp`: a command, so its start is in its time."""
    back = scratch / "gcloud"
    back.mkdir()
    environment = os.environ | {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{url}/storage/v1/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CONFIG": str(scratch / "gcloud-settings"),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_CORE_PROJECT": PROJECT,
    }

    def copy(*arguments: str) -> None:
        command = ["gcloud", "storage", "cp", "--quiet", "--no-user-output-enabled", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    files = [str(load.folder / name) for name in load.names]
    return Client(
        "gcloud storage cp",
        lambda: copy(*files, f"gs://{bucket}/gcloud/"),
        lambda: copy(*(f"gs://{bucket}/gcloud/{name}" for name in load.names), f"{back}/"),
        lambda: [(back / name).read_bytes() for name in load.names],
    )


def _bucket(name: str) -> Any:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    return storage.Client(project=PROJECT, credentials=AnonymousCredentials()).bucket(name)
