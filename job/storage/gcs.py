"""A bucket in Cloud Storage: `gs://BUCKET/PREFIX`, or whatever STORAGE_EMULATOR_HOST names.

Every write carries a precondition where the caller gave one, the checksum that the service holds the bytes against,
and a random write_id in the object's metadata: after a lost reply a 412 is told apart by it from another's write.

Large objects go as parts, several streams at once, and the service joins them: parts and the joined object take
preconditions and checksums, which multipart uploads of the XML API do not. Parts are objects beside the one that they
become, so whatever deletes a checkpoint's folder deletes what a killed upload left, and a lifecycle rule for
PART_SUFFIX finds the rest.

Tries are counted here and nowhere below: a few, seconds in all, of what failed by the network or by the service
(429, 5xx); never of a refusal.
"""

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import tenacity

from job.errors import BatonError, Transient
from job.storage import Data, NotFound, ObjectInfo, PreconditionFailed
from job.storage.chunks import crc32c, crc32c_combined
from job.storage.gcs_names import object_name, parsed
from job.storage.gcs_parts import COMPOSED_AT_ONCE, SINGLE_BYTES, SMALLEST_SPAN_BYTES, in_parts, spans
from job.storage.gcs_wire import Wire, content_type, decoded, fill
from job.storage.pace import Pace
from job.storage.parallel import in_parallel
from job.storage.usage import Usage

T = TypeVar("T")

PART_SUFFIX = ".part"
WRITE_ID = "write_id"
TRIES = 4
RETRY_WAIT_MAX_S = 2.0
STALL_S = 10.0
"""After which a connection that stands still is given up. A machine's notice leaves time for another try."""
WRITE_INTERVAL_S = 1.0
"""Between two writes of one object: the service takes about one a second."""
STREAMS = 8


class _Again(Transient):
    """The whole of a read is to be done again, not a request of it."""


class GcsBucket:
    """The bucket at a `gs://BUCKET/PREFIX` URI. Nothing is asked of the service before the first call."""

    def __init__(
        self,
        uri: str,
        *,
        stall_s: float = STALL_S,
        write_interval_s: float = WRITE_INTERVAL_S,
        tries: int = TRIES,
        single_bytes: int = SINGLE_BYTES,
        smallest_span_bytes: int = SMALLEST_SPAN_BYTES,
        streams: int = STREAMS,
    ) -> None:
        bucket, self._prefix = parsed(uri)
        self.uri = f"gs://{bucket}/{self._prefix}".rstrip("/")
        self._wire = Wire(bucket, stall_s=stall_s)
        self._tries, self._streams = tries, streams
        self._single_bytes, self._smallest_span_bytes = single_bytes, smallest_span_bytes
        self._pace = Pace(write_interval_s)

    @property
    def usage(self) -> Usage:
        """What the service was asked for so far, tries that failed among it."""
        return self._wire.meter.usage

    def location(self) -> str | None:
        """The bucket's location, None where it may not be asked for (storage.buckets.get)."""
        with contextlib.suppress(BatonError, NotFound), self._wire.asking("read", "") as bucket:
            bucket.reload(retry=None, timeout=self._wire.timeout)
            return str(bucket.location)
        return None

    def read(self, name: str) -> tuple[bytes, ObjectInfo]:
        """The whole object. Raises NotFound."""
        target = self._object(name)
        return self._try(partial(self._read, target))

    def read_into(self, name: str, buffer: memoryview) -> ObjectInfo:
        """Streams the object into `buffer`, whose length must be the object's size, large ones by several streams.

        Raises NotFound, ValueError on another size.
        """
        return self._try(partial(self._read_into, self._object(name), buffer.cast("B")), on=_Again)

    def stat(self, name: str) -> ObjectInfo | None:
        """The object's metadata, None when it does not exist."""
        target = self._object(name)
        try:
            return self._info(self._try(lambda: self._blob(target)))
        except NotFound:
            return None

    def write(self, name: str, data: Data, *, if_generation: int | None = None) -> ObjectInfo:
        """Writes the object as a whole. Raises PreconditionFailed, and then nothing was changed."""
        target = self._object(name)
        parts = in_parts(data, streams=self._streams, single_bytes=self._single_bytes)
        first, second = next(parts), next(parts, None)
        if second is None:
            return self._put(target, first, if_generation=if_generation)
        return self._put_joined(target, chain((first, second), parts), if_generation)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose name starts with `prefix`, sorted by name, fetched page by page."""
        token: str | None = None
        while True:
            blobs, token = self._try(partial(self._wire.pages, self._prefix + prefix, token))
            yield from (self._info(blob) for blob in blobs)
            if not token:
                return

    def delete(self, name: str, *, if_generation: int | None = None) -> None:
        """Deletes the object; one that is gone already is no error. Raises PreconditionFailed."""
        target = self._object(name)
        try:
            self._try(partial(self._delete, target, if_generation))
        except NotFound:
            return
        except PreconditionFailed:
            if self.stat(name) is not None:
                raise

    def _object(self, name: str) -> str:
        return object_name(self._prefix, name)

    def _read(self, target: str) -> tuple[bytes, ObjectInfo]:
        with self._wire.media(target) as response:
            data: bytes = response.raw.read(decode_content=False)
            headers = response.headers
        generation, crc = int(headers["x-goog-generation"]), crc32c(data)
        wanted = re.search(r"crc32c=([^,]+)", headers.get("x-goog-hash", ""))
        modified = headers.get("last-modified")
        if wanted is None or modified is None:
            try:
                blob = self._blob(target, generation)
            except NotFound:
                raise Transient(f"gs://{self._wire.bucket}/{target} was replaced while it was read.") from None
            promised, updated_s = decoded(blob.crc32c), blob.updated.timestamp()
        else:
            promised, updated_s = decoded(wanted[1]), parsedate_to_datetime(modified).timestamp()
        if crc != promised:
            raise Transient(
                f"gs://{self._wire.bucket}/{target}: other bytes arrived than are stored.", fix="Try again."
            )
        return data, ObjectInfo(self._relative(target), generation, len(data), crc, updated_s)

    def _read_into(self, target: str, view: memoryview) -> ObjectInfo:
        info = self._info(self._try(partial(self._blob, target)))
        if info.size_bytes != len(view):
            raise ValueError(f"{info.name} has {info.size_bytes} bytes, not {len(view)}")

        def read(first: int, end: int) -> tuple[int, int]:
            def once() -> int:
                with self._wire.media(target, generation=info.generation, first=first, end=end) as response:
                    return fill(response, view[first:end])

            return self._try(once), end - first

        ranges = spans(len(view), streams=self._streams, smallest=self._smallest_span_bytes)
        try:
            crc = _joined_crc(in_parallel((partial(read, *span) for span in ranges), self._streams))
        except NotFound:
            raise _Again(f"{self.uri}/{info.name} was replaced while it was read.", fix="Try again.") from None
        if crc != info.crc32c:
            raise _Again(f"{self.uri}/{info.name}: other bytes arrived than are stored.", fix="Try again.")
        return info

    def _put(self, target: str, views: Sequence[memoryview], *, if_generation: int | None) -> ObjectInfo:
        """Writes by one request, tried again until its outcome is known. Raises PreconditionFailed, Transient."""
        crc = crc32c(views)

        def send(metadata: Mapping[str, str]) -> ObjectInfo:
            said = self._wire.upload(target, views, crc=crc, if_generation=if_generation, metadata=metadata)
            return self._said(said)

        return self._written(target, send, crc, sum(len(view) for view in views))

    def _put_joined(self, target: str, parts: Iterator[Sequence[memoryview]], if_generation: int | None) -> ObjectInfo:
        """Writes the parts as objects of their own, then has the service join them."""
        nonce, made = secrets.token_hex(8), list[str]()

        def put(views: Sequence[memoryview]) -> Callable[[], ObjectInfo]:
            made.append(f"{target}.{nonce}-{len(made):04}{PART_SUFFIX}")
            return partial(self._put, made[-1], views, if_generation=0)

        try:
            sources = in_parallel((put(views) for views in parts), self._streams)
            while len(sources) > COMPOSED_AT_ONCE:
                groups = [sources[at : at + COMPOSED_AT_ONCE] for at in range(0, len(sources), COMPOSED_AT_ONCE)]
                made += [f"{target}.{nonce}-{len(made) + n:04}{PART_SUFFIX}" for n in range(len(groups))]
                names = made[-len(groups) :]
                sources = [self._join(name, group, 0) for name, group in zip(names, groups, strict=True)]
            return self._join(target, sources, if_generation)
        finally:
            in_parallel((partial(self._discard, name) for name in made), self._streams)

    def _join(self, target: str, sources: Sequence[ObjectInfo], if_generation: int | None) -> ObjectInfo:
        crcs = [(source.crc32c or 0, source.size_bytes) for source in sources]

        def compose(metadata: Mapping[str, str]) -> ObjectInfo:
            with self._wire.asking("write", target) as bucket:
                blob = bucket.blob(target)
                blob.metadata, blob.content_type = metadata, content_type(target)
                blob.compose(
                    [bucket.blob(self._prefix + s.name, generation=s.generation) for s in sources],
                    if_generation_match=if_generation,
                    if_source_generation_match=[source.generation for source in sources],
                    retry=None,
                    timeout=self._wire.timeout,
                )
            return self._info(blob)

        return self._written(target, compose, _joined_crc(crcs), sum(size for _, size in crcs))

    def _written(
        self, target: str, send: Callable[[Mapping[str, str]], ObjectInfo], crc: int, size_bytes: int
    ) -> ObjectInfo:
        """Tries a write until its outcome is known, and holds what the service says against what was sent."""
        write_id = secrets.token_hex(8)
        uncertain = False

        def once() -> ObjectInfo:
            nonlocal uncertain
            time.sleep(self._pace.wait_s(target, time.monotonic()))
            try:
                return send({WRITE_ID: write_id})
            except PreconditionFailed:
                if not uncertain:
                    raise
                with contextlib.suppress(NotFound):
                    blob = self._blob(target)
                    if (blob.metadata or {}).get(WRITE_ID) == write_id:
                        return self._info(blob)  # an earlier try arrived, its reply was lost
                raise
            except Transient:
                uncertain = True
                raise

        info = self._try(once)
        if (info.crc32c, info.size_bytes) != (crc, size_bytes):
            raise Transient(f"{self.uri}/{info.name}: other bytes are stored than were sent.", fix="Try again.")
        return info

    def _delete(self, target: str, if_generation: int | None) -> None:
        with self._wire.asking("delete", target) as bucket:
            bucket.blob(target).delete(if_generation_match=if_generation, retry=None, timeout=self._wire.timeout)

    def _discard(self, target: str) -> None:
        """Deletes a part, if that works at once."""
        with contextlib.suppress(BatonError, NotFound):
            self._delete(target, None)

    def _blob(self, target: str, generation: int | None = None) -> Any:
        """What the service knows of the object. Raises NotFound."""
        with self._wire.asking("read", target) as bucket:
            blob = bucket.blob(target, generation=generation)
            blob.reload(retry=None, timeout=self._wire.timeout)
            return blob

    def _info(self, blob: Any) -> ObjectInfo:
        return ObjectInfo(
            self._relative(blob.name), blob.generation, blob.size, decoded(blob.crc32c), blob.updated.timestamp()
        )

    def _said(self, said: Mapping[str, Any]) -> ObjectInfo:
        """The same of an answer in the service's own words."""
        return ObjectInfo(
            self._relative(said["name"]),
            int(said["generation"]),
            int(said["size"]),
            decoded(said["crc32c"]),
            datetime.fromisoformat(said["updated"]).timestamp(),
        )

    def _relative(self, target: str) -> str:
        return target.removeprefix(self._prefix)

    def _try(self, work: Callable[[], T], on: type[Transient] = Transient) -> T:
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(on),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=RETRY_WAIT_MAX_S),
            stop=tenacity.stop_after_attempt(self._tries),
            reraise=True,
        )(work)


def _joined_crc(pieces: Sequence[tuple[int, int]]) -> int:
    """The checksum of pieces one after another, by (checksum, bytes) of each."""
    crc = 0
    for piece, size_bytes in pieces:
        crc = crc32c_combined(crc, piece, size_bytes)
    return crc
