"""Reading from Cloud Storage: whole objects by one request, large ones by several streams; every byte is checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from job.errors import Transient
from job.storage import NotFound, ObjectInfo
from job.storage.chunks import crc32c, crc32c_joined
from job.storage.gcs_parts import spans
from job.storage.gcs_wire import Wire, decoded, fill
from job.storage.parallel import in_parallel
from job.storage.tries import Again, Tries


@dataclass(frozen=True)
class Reader:
    """Reads objects by their whole names."""

    wire: Wire
    tries: Tries
    streams: int
    smallest_span_bytes: int

    def whole(self, target: str) -> tuple[bytes, ObjectInfo]:
        """The bytes of an object. Raises NotFound."""

        def once() -> tuple[bytes, ObjectInfo]:
            with self.wire.media(target) as response:
                data: bytes = response.read(decode_content=False)
                headers = response.headers
            return data, self._checked(target, headers, len(data), crc32c(data))

        return self.tries(once)

    def into(self, target: str, view: memoryview) -> ObjectInfo:
        """Streams an object into memory of its size. Raises NotFound, ValueError on another size."""
        if len(view) > self.smallest_span_bytes:
            return self.tries(partial(self._ranges, target, view), on=Again)

        def once() -> ObjectInfo:
            with self.wire.media(target) as response:
                headers = response.headers
                _check_size(target, int(headers["content-length"]), view)
                crc = fill(response, view)
            return self._checked(target, headers, len(view), crc)

        return self.tries(once)

    def look(self, target: str) -> ObjectInfo:
        """What the service knows of an object. Raises NotFound."""
        return self.tries(lambda: info_of(blob_of(self.wire, target)))

    def _ranges(self, target: str, view: memoryview) -> ObjectInfo:
        """All ranges are of the generation that the first look sees."""
        info = self.look(target)
        _check_size(target, info.size_bytes, view)

        def read(first: int, end: int) -> tuple[int, int]:
            def once() -> int:
                with self.wire.media(target, generation=info.generation, first=first, end=end) as response:
                    return fill(response, view[first:end])

            return self.tries(once), end - first

        ranges = spans(len(view), streams=self.streams, smallest=self.smallest_span_bytes)
        try:
            crc = crc32c_joined(in_parallel((partial(read, *span) for span in ranges), self.streams))
        except NotFound:
            raise Again(f"{self.wire.uri(target)} was replaced while it was read.", fix="Try again.") from None
        if crc != info.crc32c:
            raise Again(f"{self.wire.uri(target)}: other bytes arrived than are stored.", fix="Try again.")
        return info

    def _checked(self, target: str, headers: Mapping[str, str], size_bytes: int, crc: int) -> ObjectInfo:
        """What the answer's headers tell of the bytes that came with them. Raises Transient when they are others."""
        generation = int(headers["x-goog-generation"])
        wanted = re.search(r"crc32c=([^,]+)", headers.get("x-goog-hash", ""))
        modified = headers.get("last-modified")
        if wanted is not None and modified is not None:
            promised, updated_s = decoded(wanted[1]), parsedate_to_datetime(modified).timestamp()
        else:
            try:
                blob = blob_of(self.wire, target, generation)
            except NotFound:
                raise Transient(f"{self.wire.uri(target)} was replaced while it was read.", fix="Try again.") from None
            promised, updated_s = decoded(blob.crc32c), blob.updated.timestamp()
        if crc != promised:
            raise Transient(f"{self.wire.uri(target)}: other bytes arrived than are stored.", fix="Try again.")
        return ObjectInfo(target, generation, size_bytes, crc, updated_s)


def blob_of(wire: Wire, target: str, generation: int | None = None) -> Any:
    """google-cloud-storage's blob of an object, with what the service knows of it. Raises NotFound."""
    with wire.asking("read", target) as bucket:
        blob = bucket.blob(target, generation=generation)
        blob.reload(retry=None, timeout=wire.timeout)
        return blob


def info_of(blob: Any) -> ObjectInfo:
    """The same in our words, by the object's whole name."""
    return ObjectInfo(blob.name, blob.generation, blob.size, decoded(blob.crc32c), blob.updated.timestamp())


def _check_size(target: str, size_bytes: int, view: memoryview) -> None:
    if size_bytes != len(view):
        raise ValueError(f"{target} has {size_bytes} bytes, not {len(view)}")
