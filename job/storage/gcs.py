"""A bucket in Cloud Storage: `gs://BUCKET/PREFIX`, or whatever STORAGE_EMULATOR_HOST names.

Every write carries a precondition where the caller gave one, the checksum that the service holds the bytes against,
and a random write_id in the object's metadata: after a lost reply a 412 is told apart by it from another's write.

Large objects go as parts, several streams at once, and the service joins them: parts and the joined object take
preconditions and checksums, which multipart uploads of the XML API do not. Parts are objects beside the one that they
become, so whatever deletes a checkpoint's folder deletes what a killed upload left, and a lifecycle rule for their
suffix finds the rest.

Tries are counted here and nowhere below: a few, seconds in all, of what failed by the network or by the service
(429, 5xx); never of a refusal.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from job.errors import BatonError
from job.storage import Data, NotFound, ObjectInfo, PreconditionFailed
from job.storage.gcs_names import object_name, parsed
from job.storage.gcs_parts import SINGLE_BYTES, SMALLEST_SPAN_BYTES
from job.storage.gcs_read import Reader, info_of
from job.storage.gcs_wire import Wire
from job.storage.gcs_write import Writer
from job.storage.pace import Pace
from job.storage.tries import Tries
from job.storage.usage import Usage

TRIES = 4
STALL_S = 10.0
"""After which a connection that stands still is given up. A machine's notice leaves time for another try."""
WRITE_INTERVAL_S = 1.0
"""Between two writes of one object: the service takes about one a second."""
STREAMS = 8


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
        self._tries = Tries(tries)
        self._reader = Reader(self._wire, self._tries, streams, smallest_span_bytes)
        self._writer = Writer(self._wire, self._tries, Pace(write_interval_s), streams, single_bytes)

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
        data, info = self._reader.whole(self._object(name))
        return data, self._relative(info)

    def read_into(self, name: str, buffer: memoryview) -> ObjectInfo:
        """Streams the object into `buffer`, whose length must be the object's size, large ones by several streams.

        Raises NotFound, ValueError on another size.
        """
        return self._relative(self._reader.into(self._object(name), buffer.cast("B")))

    def stat(self, name: str) -> ObjectInfo | None:
        """The object's metadata, None when it does not exist."""
        target = self._object(name)
        try:
            return self._relative(self._reader.look(target))
        except NotFound:
            return None

    def write(self, name: str, data: Data, *, if_generation: int | None = None) -> ObjectInfo:
        """Writes the object as a whole. Raises PreconditionFailed, and then nothing was changed."""
        return self._relative(self._writer.write(self._object(name), data, if_generation))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose name starts with `prefix`, sorted by name, fetched page by page."""
        token: str | None = None
        while True:
            blobs, token = self._tries(partial(self._wire.pages, self._prefix + prefix, token))
            yield from (self._relative(info_of(blob)) for blob in blobs)
            if not token:
                return

    def folders(self, prefix: str) -> Iterator[str]:
        """The folders right below `prefix` that have objects, each ending in a slash, sorted."""
        token: str | None = None
        while True:
            found, token = self._tries(partial(self._wire.folders, self._prefix + prefix, token))
            yield from (name.removeprefix(self._prefix) for name in found)
            if not token:
                return

    def delete(self, name: str, *, if_generation: int | None = None) -> None:
        """Deletes the object; one that is gone already is no error. Raises PreconditionFailed."""
        target = self._object(name)
        try:
            self._tries(partial(self._writer.delete, target, if_generation))
        except NotFound:
            return
        except PreconditionFailed:
            if self.stat(name) is not None:
                raise

    def _object(self, name: str) -> str:
        return object_name(self._prefix, name)

    def _relative(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, name=info.name.removeprefix(self._prefix))
