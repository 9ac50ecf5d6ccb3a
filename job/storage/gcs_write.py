"""Writing to Cloud Storage, until the outcome is known: by one request, or in parts that the service joins."""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any

from job.errors import BatonError, Transient
from job.storage import Data, NotFound, ObjectInfo, PreconditionFailed
from job.storage.chunks import crc32c, crc32c_joined
from job.storage.gcs_parts import COMPOSED_AT_ONCE, in_parts
from job.storage.gcs_read import blob_of, info_of
from job.storage.gcs_wire import Wire, content_type, decoded
from job.storage.pace import Pace
from job.storage.parallel import in_parallel
from job.storage.tries import Tries

PART_SUFFIX = ".part"
WRITE_ID = "write_id"


@dataclass(frozen=True)
class Writer:
    """Writes and deletes objects by their whole names."""

    wire: Wire
    tries: Tries
    pace: Pace
    streams: int
    single_bytes: int

    def write(self, target: str, data: Data, if_generation: int | None) -> ObjectInfo:
        """The object as a whole, several streams at once when it is large. Raises PreconditionFailed, Transient."""
        parts = in_parts(data, streams=self.streams, single_bytes=self.single_bytes)
        first, second = next(parts), next(parts, None)
        if second is None:
            return self._put(target, first, if_generation=if_generation)
        return self._put_joined(target, chain((first, second), parts), if_generation)

    def delete(self, target: str, if_generation: int | None) -> None:
        """One try. Raises NotFound, PreconditionFailed."""
        with self.wire.asking("delete", target) as bucket:
            bucket.blob(target).delete(if_generation_match=if_generation, retry=None, timeout=self.wire.timeout)

    def _put(self, target: str, views: Sequence[memoryview], *, if_generation: int | None) -> ObjectInfo:
        crc = crc32c(views)

        def send(metadata: Mapping[str, str]) -> ObjectInfo:
            said = self.wire.upload(target, views, crc=crc, if_generation=if_generation, metadata=metadata)
            return _said(said)

        return self._written(target, send, crc, sum(len(view) for view in views))

    def _put_joined(self, target: str, parts: Iterator[Sequence[memoryview]], if_generation: int | None) -> ObjectInfo:
        """The parts as objects of their own, which the service then joins."""
        nonce, made = secrets.token_hex(8), list[str]()

        def put(views: Sequence[memoryview]) -> Callable[[], ObjectInfo]:
            made.append(f"{target}.{nonce}-{len(made):04}{PART_SUFFIX}")
            return partial(self._put, made[-1], views, if_generation=0)

        try:
            sources = in_parallel((put(views) for views in parts), self.streams)
            while len(sources) > COMPOSED_AT_ONCE:
                groups = [sources[at : at + COMPOSED_AT_ONCE] for at in range(0, len(sources), COMPOSED_AT_ONCE)]
                made += [f"{target}.{nonce}-{len(made) + n:04}{PART_SUFFIX}" for n in range(len(groups))]
                names = made[-len(groups) :]
                sources = [self._join(name, group, 0) for name, group in zip(names, groups, strict=True)]
            return self._join(target, sources, if_generation)
        finally:
            in_parallel((partial(self._discard, name) for name in made), self.streams)

    def _join(self, target: str, sources: Sequence[ObjectInfo], if_generation: int | None) -> ObjectInfo:
        crcs = [(source.crc32c or 0, source.size_bytes) for source in sources]

        def compose(metadata: Mapping[str, str]) -> ObjectInfo:
            with self.wire.asking("write", target) as bucket:
                blob = bucket.blob(target)
                blob.metadata, blob.content_type = metadata, content_type(target)
                blob.compose(
                    [bucket.blob(source.name, generation=source.generation) for source in sources],
                    if_generation_match=if_generation,
                    if_source_generation_match=[source.generation for source in sources],
                    retry=None,
                    timeout=self.wire.timeout,
                )
            return info_of(blob)

        return self._written(target, compose, crc32c_joined(crcs), sum(size for _, size in crcs))

    def _written(
        self, target: str, send: Callable[[Mapping[str, str]], ObjectInfo], crc: int, size_bytes: int
    ) -> ObjectInfo:
        """Tries a write until its outcome is known, and holds what the service says against what was sent."""
        write_id = secrets.token_hex(8)
        uncertain = False

        def once() -> ObjectInfo:
            nonlocal uncertain
            time.sleep(self.pace.wait_s(target, time.monotonic()))
            try:
                return send({WRITE_ID: write_id})
            except PreconditionFailed:
                if not uncertain:
                    raise
                with contextlib.suppress(NotFound):
                    blob = blob_of(self.wire, target)
                    if (blob.metadata or {}).get(WRITE_ID) == write_id:
                        return info_of(blob)  # an earlier try arrived, its reply was lost
                raise
            except Transient:
                uncertain = True
                raise

        info = self.tries(once)
        if (info.crc32c, info.size_bytes) != (crc, size_bytes):
            raise Transient(f"{self.wire.uri(target)}: other bytes are stored than were sent.", fix="Try again.")
        return info

    def _discard(self, target: str) -> None:
        """Deletes a part, if that works at once."""
        with contextlib.suppress(BatonError, NotFound):
            self.delete(target, None)


def _said(said: Mapping[str, Any]) -> ObjectInfo:
    """What the service says of an object that it has stored."""
    return ObjectInfo(
        said["name"],
        int(said["generation"]),
        int(said["size"]),
        decoded(said["crc32c"]),
        datetime.fromisoformat(said["updated"]).timestamp(),
    )
