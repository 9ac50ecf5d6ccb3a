"""Buckets and their objects: generations, preconditions, and what each change leaves.

All that is known is in memory, behind one lock; the journal brings it back after a kill. Bytes are in the data
folder before an object names them, and are dropped after it no longer does.
"""

import bisect
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from infra.localcloud.journal import Entry, Journal
from infra.localcloud.storage.conditions import NONE, Conditions
from infra.localcloud.storage.data import DataFolder, Opened, Piece
from infra.localcloud.storage.errors import ApiError, no_bucket, no_object
from infra.localcloud.storage.stored import StoredObject


@dataclass
class BucketState:
    """One bucket: its resource's fields, and its objects by name."""

    fields: dict[str, Any]
    objects: dict[str, StoredObject] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    """Sorted by code points, which is the order of their UTF-8, in which Cloud Storage lists."""


class Store:
    """All buckets under one folder."""

    def __init__(self, root: Path, *, keep_bytes: bool = True, now: Callable[[], float] = time.time) -> None:
        self.data = DataFolder(root / "data", keep_bytes=keep_bytes)
        self.journal = Journal(root / "journal.jsonl")
        self.lock = threading.RLock()
        self.now = now
        self.uploads: dict[str, Entry] = {}
        """Uploads under way when the last server died, by their ids; uploads.py takes them from here."""
        self._buckets: dict[str, BucketState] = {}
        self._generation = 0
        for entry in self.journal.read():
            self._replay(entry)
        self.journal.restart(self._entries())
        self.data.drop_all_but(set(self.files()))

    def close(self) -> None:
        """Takes no more changes."""
        self.journal.close()

    def create_bucket(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A new, empty bucket. Raises 409 when there is one."""
        with self.lock:
            if name in self._buckets:
                message = "Your previous request to create the named bucket succeeded and you already own it."
                raise ApiError(409, "conflict", message)
            made = _given(fields) | {
                "name": name,
                "created_s": self.now(),
                "updated_s": self.now(),
                "metageneration": 1,
            }
            self.journal.add({"op": "bucket", "fields": made})
            self._buckets[name] = BucketState(made)
            return made

    def bucket(self, name: str) -> dict[str, Any]:
        """A bucket's fields. Raises 404."""
        return self._bucket(name).fields

    def buckets(self) -> list[dict[str, Any]]:
        """The fields of all buckets, by name."""
        with self.lock:
            return [self._buckets[name].fields for name in sorted(self._buckets)]

    def update_bucket(self, name: str, changes: Mapping[str, Any], conditions: Conditions = NONE) -> dict[str, Any]:
        """Changes fields of a bucket; None takes one away."""
        with self.lock:
            bucket = self._bucket(name)
            conditions.check(0, bucket.fields["metageneration"])
            merged = _given(bucket.fields | dict(changes))
            merged |= {"metageneration": bucket.fields["metageneration"] + 1, "updated_s": self.now()}
            self.journal.add({"op": "bucket", "fields": merged})
            bucket.fields = merged
            return merged

    def delete_bucket(self, name: str, conditions: Conditions = NONE) -> None:
        """Deletes an empty bucket. Raises 409 when it is not."""
        with self.lock:
            bucket = self._bucket(name)
            conditions.check(0, bucket.fields["metageneration"])
            if bucket.objects:
                raise ApiError(
                    409, "conflict", "The bucket you tried to delete is not empty.", xml_code="BucketNotEmpty"
                )
            self.journal.add({"op": "no bucket", "name": name})
            del self._buckets[name]

    def get(self, bucket: str, name: str, generation: int | None = None, conditions: Conditions = NONE) -> StoredObject:
        """An object. Raises 404, 412, 304."""
        with self.lock:
            found = self._bucket(bucket).objects.get(name)
            if found is None or generation not in (None, found.generation):
                raise no_object(bucket, name)
            conditions.check(found.generation, found.metageneration)
            return found

    def peek(self, bucket: str, name: str) -> StoredObject | None:
        """An object, None when there is none. Raises 404 for the bucket."""
        with self.lock:
            return self._bucket(bucket).objects.get(name)

    def open(
        self, bucket: str, name: str, generation: int | None, conditions: Conditions
    ) -> tuple[StoredObject, Opened]:
        """The object and its bytes, readable until they are closed, whatever happens to it. Raises 404, 412, 304."""
        with self.lock:
            found = self.get(bucket, name, generation, conditions)
            return found, self.data.open(found.pieces)

    def put(
        self,
        bucket: str,
        name: str,
        pieces: tuple[Piece, ...],
        *,
        md5: str | None,
        fields: Mapping[str, Any],
        conditions: Conditions,
        components: int = 0,
        ends_upload: str = "",
    ) -> StoredObject:
        """Gives `name` these bytes and a new generation. Raises 412 and drops the pieces; nothing was changed.

        The upload that this ends, if any, is over in the same line of the journal: a kill finds both or neither.
        """
        try:
            with self.lock:
                old = self.peek(bucket, name)
                conditions.check(old.generation if old else 0, old.metageneration if old else 0)
                now = self.now()
                self._generation = max(self._generation + 1, int(now * 1_000_000))
                new = StoredObject(bucket, name, self._generation, 1, pieces, md5, now, now, components, _given(fields))
                self._commit(new, ends_upload)
        except ApiError:
            self.data.drop(pieces)
            raise
        if old is not None:
            self.data.drop(old.pieces)
        return new

    def copy(
        self, source: StoredObject, bucket: str, name: str, fields: Mapping[str, Any], conditions: Conditions
    ) -> StoredObject:
        """The source's bytes under another name, or under its own with a new generation.

        The caller holds the lock since it looked the source up.
        """
        with self.lock:
            pieces = self.data.share(source.pieces)
            return self.put(
                bucket,
                name,
                pieces,
                md5=source.md5,
                fields=fields or source.fields,
                conditions=conditions,
                components=source.components,
            )

    def update(
        self, bucket: str, name: str, generation: int | None, changes: Mapping[str, Any], conditions: Conditions
    ) -> StoredObject:
        """Changes what the client may set; None takes a field away. The generation stays, the metageneration grows."""
        with self.lock:
            old = self.get(bucket, name, generation)
            conditions.check(old.generation, old.metageneration)
            fields = _given(dict(old.fields) | dict(changes))
            new = replace(old, metageneration=old.metageneration + 1, updated_s=self.now(), fields=fields)
            self._commit(new)
            return new

    def delete(self, bucket: str, name: str, generation: int | None, conditions: Conditions) -> None:
        """Deletes an object. Raises 404, 412."""
        with self.lock:
            old = self.peek(bucket, name)
            if old is None or generation not in (None, old.generation):
                raise no_object(bucket, name)
            conditions.check(old.generation, old.metageneration)
            self.journal.add({"op": "delete", "bucket": bucket, "name": name})
            self._forget(bucket, name)
        self.data.drop(old.pieces)

    def names(self, bucket: str, prefix: str, start: str) -> Iterator[str]:
        """The names that begin with `prefix`, from `start` on, in order."""
        with self.lock:
            names = self._bucket(bucket).names
            at = bisect.bisect_left(names, max(prefix, start))
            found = []
            for name in names[at:]:
                if not name.startswith(prefix):
                    break
                found.append(name)
        return iter(found)

    def _bucket(self, name: str) -> BucketState:
        with self.lock:
            if name not in self._buckets:
                raise no_bucket()
            return self._buckets[name]

    def _commit(self, new: StoredObject, ends_upload: str = "") -> None:
        self.journal.add({"op": "put", "object": asdict(new), "ends": ends_upload})
        self._set(new)

    def _set(self, new: StoredObject) -> None:
        bucket = self._buckets[new.bucket]
        if new.name not in bucket.objects:
            bisect.insort(bucket.names, new.name)
        bucket.objects[new.name] = new

    def _forget(self, bucket: str, name: str) -> None:
        state = self._buckets[bucket]
        del state.objects[name]
        del state.names[bisect.bisect_left(state.names, name)]

    def _replay(self, entry: Entry) -> None:
        match entry["op"]:
            case "bucket":
                name = entry["fields"]["name"]
                self._buckets.setdefault(name, BucketState({})).fields = entry["fields"]
            case "generation":
                self._generation = entry["newest"]
            case "no bucket":
                del self._buckets[entry["name"]]
            case "put":
                pieces = tuple(Piece(**piece) for piece in entry["object"].pop("pieces"))
                new = StoredObject(pieces=pieces, **entry["object"])
                self._generation = max(self._generation, new.generation)  # metadata changes keep an old one
                self._set(new)
                self.uploads.pop(entry["ends"], None)
            case "delete":
                self._forget(entry["bucket"], entry["name"])
            case "upload":
                self.uploads[entry["id"]] = entry
            case "part":
                self.uploads[entry["id"]]["parts"][str(entry["number"])] = entry["part"]
            case "no upload":
                del self.uploads[entry["id"]]
            case unknown:
                raise ValueError(f"{unknown!r} is no change that this version knows")

    def _entries(self) -> Iterator[Entry]:
        """The shortest journal that leads to the present state."""
        yield {"op": "generation", "newest": self._generation}  # perhaps of an object that is gone: never used again
        for bucket in self._buckets.values():
            yield {"op": "bucket", "fields": bucket.fields}
            for stored in bucket.objects.values():
                yield {"op": "put", "object": asdict(stored), "ends": ""}
        yield from self.uploads.values()

    def files(self) -> Iterator[str]:
        """The data files that anything refers to."""
        for bucket in self._buckets.values():
            for stored in bucket.objects.values():
                yield from (piece.file for piece in stored.pieces)
        for upload in self.uploads.values():
            yield upload["file"]
            yield from (part["piece"]["file"] for part in upload["parts"].values())


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value: null means that there is none."""
    return {key: value for key, value in fields.items() if value is not None}
