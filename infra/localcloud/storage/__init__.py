"""A Cloud Storage on loopback that keeps to preconditions, survives its own death, and fails on demand."""

from infra.localcloud.storage.server import StorageServer, start

__all__ = ["StorageServer", "start"]
