"""A VM's metadata server, on a loopback address of its own: what it is, its token, and the notice of its end.

As Compute Engine's: the header `Metadata-Flavor: Google` is asked for and sent; `wait_for_change` hangs until what is
asked for is no longer as `last_etag` (without one: as now), or until `timeout_sec` are over.
"""

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from infra.localcloud.messages import ConnectionCut, Request, Response
from infra.localcloud.server import serving
from infra.localcloud.vm.guest import Guest, as_json, as_text, find

ROOT = "/computeMetadata/v1/"
TOKEN_S = 3600
Token = Callable[[], str | None]
"""A token of the VM's account, which the other servers know; None: none can be had now."""


class MetadataServer:
    """What one VM is told. Safe to use from several threads."""

    def __init__(self, guest: Guest, token: Token, *, scale: float = 1.0) -> None:
        self._guest = guest
        self._token = token
        self._scale = scale
        self._changed = threading.Condition()
        self._cut = False
        self._closed = False

    def announce_preemption(self) -> None:
        """`preempted` is TRUE from now on."""
        with self._changed:
            self._guest.preempted = True
            self._changed.notify_all()

    def cut(self, cut: bool) -> None:
        """Takes the VM's way to here away, or gives it back: its connections end without an answer."""
        with self._changed:
            self._cut = cut
            self._changed.notify_all()

    def close(self) -> None:
        """Lets nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def answer(self, request: Request) -> Response:
        """One request. Raises ConnectionCut for a VM without network."""
        request.body.drain()
        if self._cut:
            raise ConnectionCut
        response = self._answer(request.path, request.query, request.headers)
        if self._cut or self._closed:
            raise ConnectionCut
        response.headers["Metadata-Flavor"] = "Google"
        return response

    def _answer(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Response:
        if path == "/":  # by which libraries see that they are on a VM
            return _text("computeMetadata/\n")
        if headers.get("metadata-flavor") != "Google" or "x-forwarded-for" in headers:
            return _text("Missing Metadata-Flavor:Google header.", 403)
        if not path.startswith(ROOT):
            return _text("Not Found", 404)
        path = path.removeprefix(ROOT)
        if path.startswith("instance/service-accounts/") and path.endswith("/token"):
            return self._answer_token(path.removesuffix("/token"))
        response = self._look(path, query)
        if query.get("wait_for_change", "").lower() != "true":
            return response
        known = query.get("last_etag", response.headers.get("ETag"))
        with self._changed:
            end_s = time.monotonic() + float(query.get("timeout_sec", "inf")) / self._scale
            while (response := self._look(path, query)).headers.get("ETag") == known and not self._closed:
                left_s = end_s - time.monotonic()
                if left_s <= 0 or self._cut:
                    break
                self._changed.wait(None if math.isinf(left_s) else left_s)
        return response

    def _answer_token(self, account: str) -> Response:
        known = find(self._guest.tree(), account) is not None
        token = self._token() if known else None
        if token is None:
            return _text("Not Found", 404)
        return _json({"access_token": token, "expires_in": TOKEN_S, "token_type": "Bearer"})

    def _look(self, path: str, query: Mapping[str, str]) -> Response:
        found = find(self._guest.tree(), path)
        if found is None:
            return _text("Not Found", 404)
        recursive = query.get("recursive", "").lower() == "true"
        if not recursive and query.get("alt", "text") == "text":
            return _text(as_text(found))
        return _json(as_json(found, path))


@contextmanager
def serve_metadata(server: MetadataServer, host: str = "127.0.0.1") -> Iterator[str]:
    """Serves until the end of the block; yields HOST:PORT, as GCE_METADATA_HOST has it."""
    with serving(server.answer, host=host, name="Metadata Server for VM", stop=server.close) as url:
        yield url.removeprefix("http://")


def _text(text: str, status: int = 200) -> Response:
    return _response(text.encode(), "application/text", status)


def _json(data: Any) -> Response:
    return _response(json.dumps(data).encode(), "application/json", 200)


def _response(body: bytes, kind: str, status: int) -> Response:
    return Response(status, {"Content-Type": kind, "ETag": hashlib.sha256(body).hexdigest()[:16]}, body)
