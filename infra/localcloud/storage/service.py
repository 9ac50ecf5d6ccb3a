"""What every answer needs: the objects, the uploads, who may do what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.localcloud.storage.checksums import decode, encode
from infra.localcloud.storage.conditions import Conditions
from infra.localcloud.storage.data import Piece
from infra.localcloud.storage.errors import ApiError, bad_request, forbidden, no_object
from infra.localcloud.storage.messages import Request
from infra.localcloud.storage.objects import Store
from infra.localcloud.storage.policy import Gate
from infra.localcloud.storage.stored import StoredObject
from infra.localcloud.storage.uploads import Uploads

LONGEST_NAME_BYTES = 1024
MD5_UP_TO_BYTES = 8 * 1024 * 1024
"""Above this, no MD5 is computed for a client that checks by CRC-32C, as it says when it sends one: MD5 is ten times
slower and would be what a benchmark measures. The real service always has one, but for what it joined itself."""


@dataclass(frozen=True)
class Service:
    """One Cloud Storage."""

    store: Store
    uploads: Uploads
    gate: Gate

    def may_read(self, request: Request, permission: str, bucket: str, name: str) -> None:
        """Raises 403 unless the caller may read this; what is not there is 404 only for those who may list."""
        self.gate.require(request.account, permission, bucket, name)
        if self.store.peek(bucket, name) is None:
            if not self.gate.allows(request.account, "list", bucket, name):
                raise forbidden(request.account, f"storage.objects.{permission}", "object")
            raise no_object(bucket, name)

    def may_write(self, account: str, bucket: str, name: str) -> None:
        """Raises 403 unless the account may give this name new bytes (overwriting takes `delete` as well), 400."""
        if not name:
            raise ApiError(400, "required", "Required parameter: name")
        if len(name.encode()) > LONGEST_NAME_BYTES or name in (".", "..") or "\r" in name or "\n" in name:
            raise bad_request(f"Invalid object name: {name!r}")
        self.gate.require(account, "create", bucket, name)
        if self.store.peek(bucket, name) is not None:
            self.gate.require(account, "delete", bucket, name)

    def put(
        self,
        account: str,
        bucket: str,
        name: str,
        piece: Piece,
        *,
        hashes: Mapping[str, str],
        fields: Mapping[str, Any],
        conditions: Conditions,
    ) -> StoredObject:
        """Gives a name the bytes that have just come in. Raises 400, 403, 412; then they are dropped."""
        md5 = self.checked((piece,), (piece.size_bytes, piece.crc32c), hashes)
        with self.store.lock:
            try:
                self.may_write(account, bucket, name)  # it may be there only since the bytes began to come in
            except ApiError:
                self.store.data.drop([piece])
                raise
            return self.store.put(bucket, name, (piece,), md5=md5, fields=fields, conditions=conditions)

    def checked(self, pieces: tuple[Piece, ...], size: tuple[int, int], announced: Mapping[str, str]) -> str | None:
        """The MD5 to keep with new bytes of this (size, CRC-32C). Raises 400, pieces dropped, when one is wrong."""
        size_bytes, crc = size
        wanted = announced.get("crc32c")
        if wanted is not None and decode(wanted) != crc:
            self.store.data.drop(pieces)
            raise bad_request(
                f'Provided CRC32C "{wanted}" doesn\'t match calculated CRC32C "{encode(crc)}".', xml_code="BadDigest"
            )
        if wanted is not None and "md5" not in announced and size_bytes > MD5_UP_TO_BYTES:
            return None
        md5 = self.store.data.md5(pieces)
        if md5 is not None and announced.get("md5", md5) != md5:
            self.store.data.drop(pieces)
            raise bad_request(
                f'Provided MD5 hash "{announced["md5"]}" doesn\'t match calculated MD5 hash "{md5}".',
                xml_code="BadDigest",
            )
        return md5


def announced_hashes(request: Request) -> dict[str, str]:
    """The sums that the client says its bytes have: in the resource, in x-goog-hash, or as Content-MD5."""
    hashes = {
        key: str(request.metadata[field])
        for key, field in (("crc32c", "crc32c"), ("md5", "md5Hash"))
        if field in request.metadata
    }
    for part in request.headers.get("x-goog-hash", "").split(","):
        name, _, value = part.strip().partition("=")
        if name in ("crc32c", "md5"):
            hashes[name] = value
    if "content-md5" in request.headers:
        hashes["md5"] = request.headers["content-md5"]
    return hashes
