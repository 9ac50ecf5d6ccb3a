"""One object as the server knows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.localcloud.storage.data import Piece, total


@dataclass(frozen=True)
class StoredObject:
    """One object as it is now."""

    bucket: str
    name: str
    generation: int
    metageneration: int
    pieces: tuple[Piece, ...]
    md5: str | None
    """None for what was composed or uploaded in parts, as in the real service."""
    created_s: float
    updated_s: float
    components: int = 0
    """How many objects it was composed of; 0 where it was uploaded as one."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What the client may set: contentType, metadata and so on."""

    @property
    def size_bytes(self) -> int:
        """How many bytes it has."""
        return sum(piece.size_bytes for piece in self.pieces)

    @property
    def crc32c(self) -> int:
        """The checksum of all its bytes."""
        return total(self.pieces)[1]
