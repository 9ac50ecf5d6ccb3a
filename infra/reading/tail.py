"""What is new in an attempt's folder since the last look: one listing, and a read of what has changed."""

from collections.abc import Callable, Mapping
from functools import partial

from job.run.layout import attempt_folder
from job.run.records import AT_ONCE
from job.storage import Bucket, NotFound
from job.storage.parallel import in_parallel


class AttemptTail:
    """Remembers which objects it has given, by their generations. `wanted` says of which names (relative to the
    attempt's folder) the bytes are asked for."""

    def __init__(self, bucket: Bucket, attempt: int, wanted: Callable[[str], bool]) -> None:
        self.attempt = attempt
        self._bucket, self._wanted = bucket, wanted
        self._folder = attempt_folder(attempt)
        self._seen: dict[str, int] = {}

    def look(self, only: Callable[[list[str]], list[str]] | None = None) -> Mapping[str, bytes]:
        """The bytes of what is new or was written again, by name, sorted. `only` chooses of those names; what it
        leaves out counts as given."""
        listed = {info.name.removeprefix(self._folder): info.generation for info in self._bucket.list(self._folder)}
        changed = [name for name, at in listed.items() if self._wanted(name) and self._seen.get(name) != at]
        self._seen.update({name: listed[name] for name in changed})
        chosen = sorted(changed if only is None else only(changed))
        read = in_parallel((partial(self._read, name) for name in chosen), AT_ONCE)
        return {name: data for name, data in zip(chosen, read, strict=True) if data is not None}

    def _read(self, name: str) -> bytes | None:
        try:
            data, info = self._bucket.read(f"{self._folder}{name}")
        except NotFound:
            return None
        self._seen[name] = info.generation  # maybe newer than the listing
        return data
