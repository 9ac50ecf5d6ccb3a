"""Uploads of more than one request: those that resume, and those in parts. They survive the server's death."""

import secrets
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from infra.localcloud.storage.conditions import Conditions
from infra.localcloud.storage.data import BLOCK_BYTES, Incoming, Piece
from infra.localcloud.storage.errors import ApiError, no_upload
from infra.localcloud.storage.messages import ConnectionCut
from infra.localcloud.storage.objects import Store
from infra.localcloud.storage.stored import StoredObject

FINISHED_KNOWN = 1000
"""So many finished uploads still answer whoever lost the reply to the last chunk."""


@dataclass(frozen=True)
class Part:
    """One part of an upload in parts."""

    piece: Piece
    etag: str
    updated_s: float


@dataclass
class Upload:
    """One upload under way."""

    id: str
    bucket: str
    name: str
    fields: Mapping[str, Any]
    conditions: Conditions
    hashes: Mapping[str, str]
    """crc32c and md5 that the client announced at the beginning."""
    account: str
    """Who began it: the id alone lets anybody go on, as in the real service, but with the rights of this one."""
    incoming: Incoming | None
    """Of one that resumes."""
    parts: dict[int, Part] = field(default_factory=dict)
    began_s: float = 0.0
    finished: StoredObject | None = None
    turn: int = 0
    """Which request may add bytes: the newest; an older one that still hangs somewhere is over."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def kept_bytes(self) -> int:
        """How much of it has arrived."""
        return 0 if self.incoming is None else self.incoming.size_bytes

    def take_turn(self) -> int:
        """Ends every other request's right to add bytes."""
        with self.lock:
            self.turn += 1
            return self.turn

    def receive(self, blocks: Iterable[bytes], turn: int, *, skip: int, final: bool) -> None:
        """Adds bytes after the first `skip`, which are there already; only whole blocks until the final ones."""
        try:
            self._receive(blocks, turn, skip, final)
        finally:
            with self.lock:
                if self.turn == turn and self.incoming is not None:
                    self.incoming.close()  # whoever never comes back leaves no open file

    def _receive(self, blocks: Iterable[bytes], turn: int, skip: int, final: bool) -> None:
        rest = bytearray()
        for block in blocks:
            fresh = block[skip:] if skip else block
            skip -= len(block) - len(fresh)
            if not rest and len(fresh) == BLOCK_BYTES:
                self._append(fresh, turn)
                continue
            rest += fresh
            while len(rest) >= BLOCK_BYTES:
                self._append(bytes(rest[:BLOCK_BYTES]), turn)
                del rest[:BLOCK_BYTES]
        if final and rest:
            self._append(bytes(rest), turn)

    def _append(self, block: bytes, turn: int) -> None:
        with self.lock:
            if self.turn != turn or self.incoming is None:
                raise ConnectionCut  # a newer request has gone on
            self.incoming.append(block)


class Uploads:
    """All uploads, by id."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._uploads: dict[str, Upload] = {}
        self._finished: deque[str] = deque()
        for entry in store.uploads.values():
            self._uploads[entry["id"]] = self._revive(entry)

    def begin(
        self,
        bucket: str,
        name: str,
        fields: Mapping[str, Any],
        conditions: Conditions,
        *,
        hashes: Mapping[str, str],
        account: str,
        in_parts: bool,
    ) -> Upload:
        """A new upload. Raises 404 when there is no such bucket."""
        self._store.bucket(bucket)
        incoming = None if in_parts else self._store.data.incoming()
        if incoming is not None:
            incoming.close()
        now = self._store.now()
        upload = Upload(
            secrets.token_urlsafe(48), bucket, name, fields, conditions, hashes, account, incoming, began_s=now
        )
        entry = {
            "op": "upload",
            "id": upload.id,
            "bucket": bucket,
            "name": name,
            "fields": dict(fields),
            "conditions": asdict(conditions),
            "hashes": dict(hashes),
            "account": account,
            "file": incoming.path.name if incoming else "",
            "parts": {},
            "began_s": now,
        }
        with self._store.lock:
            self._store.journal.add(entry)
            self._uploads[upload.id] = upload
        return upload

    def find(self, id: str, bucket: str) -> Upload:
        """An upload that is under way or has been finished. Raises 404."""
        upload = self._uploads.get(id)
        if upload is None or upload.bucket != bucket:
            raise no_upload()
        return upload

    def of(self, bucket: str) -> list[Upload]:
        """The uploads in parts that are under way in a bucket, by object."""
        with self._store.lock:
            found = [u for u in self._uploads.values() if u.bucket == bucket and not u.incoming and not u.finished]
        return sorted(found, key=lambda upload: (upload.name, upload.began_s))

    def add_part(self, upload: Upload, number: int, piece: Piece) -> Part:
        """One part, instead of the one with this number if there is one."""
        part = Part(piece, secrets.token_hex(16), self._store.now())
        with self._store.lock:
            if self._uploads.get(upload.id) is not upload or upload.finished:
                self._store.data.drop([piece])
                raise no_upload()
            old = upload.parts.get(number)
            self._store.journal.add({"op": "part", "id": upload.id, "number": number, "part": asdict(part)})
            upload.parts[number] = part
        if old is not None:
            self._store.data.drop([old.piece])
        return part

    def finish(self, upload: Upload, pieces: tuple[Piece, ...], md5: str | None) -> StoredObject:
        """The object, of these pieces. Raises 412: then the upload is over, too."""
        with self._store.lock:
            if self._uploads.get(upload.id) is not upload or upload.finished:
                raise no_upload()
            unused = [part.piece for part in upload.parts.values() if part.piece not in pieces]
            try:
                upload.finished = self._store.put(
                    upload.bucket,
                    upload.name,
                    pieces,
                    md5=md5,
                    fields=upload.fields,
                    conditions=upload.conditions,
                    ends_upload=upload.id,
                )
            except ApiError:
                self._store.journal.add({"op": "no upload", "id": upload.id})
                del self._uploads[upload.id]
                raise
            finally:
                self._store.data.drop(unused)
            self._finished.append(upload.id)
            if len(self._finished) > FINISHED_KNOWN:
                self._uploads.pop(self._finished.popleft(), None)
            return upload.finished

    def cancel(self, upload: Upload) -> None:
        """Forgets the upload and what has arrived of it."""
        upload.take_turn()
        with self._store.lock:
            if self._uploads.pop(upload.id, None) is None or upload.finished:
                return
            self._store.journal.add({"op": "no upload", "id": upload.id})
        if upload.incoming is not None:
            upload.incoming.drop()
        self._store.data.drop(part.piece for part in upload.parts.values())

    def _revive(self, entry: dict[str, Any]) -> Upload:
        parts = {
            int(number): Part(Piece(**part["piece"]), part["etag"], part["updated_s"])
            for number, part in entry["parts"].items()
        }
        return Upload(
            entry["id"],
            entry["bucket"],
            entry["name"],
            entry["fields"],
            Conditions(**entry["conditions"]),
            entry["hashes"],
            entry["account"],
            self._store.data.incoming(entry["file"]) if entry["file"] else None,
            parts,
            entry["began_s"],
        )
