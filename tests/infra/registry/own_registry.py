"""A registry on loopback that keeps what is pushed, may want a token, may know referrers, and fails as it is told."""

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.infra.registry.pushing import INDEX

TOKEN = "a token for everybody"


@dataclass
class OwnRegistry:
    """What it holds, and how it behaves."""

    host: str = ""
    referrers: bool = True
    wants_token: bool = False
    challenge: str | None = None
    """How it says so; None: so that a client understands."""
    refuses_everybody: bool = False
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Instead of what it would say, by the end of the path."""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and authorization of each request."""
    stored: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """To a GET: status, content type, body."""
        for end, (status, body) in self.answers.items():
            if path.endswith(end):
                return status, "application/json", body
        if self.referrers and "/referrers/" in path:
            return 200, INDEX, json.dumps(self._referrers_of(path.rpartition("/")[2])).encode()
        found = self.stored.get(path)
        if found is None:
            return 404, "application/json", b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
        return 200, *found

    def _referrers_of(self, digest: str) -> dict[str, Any]:
        manifests = []
        for path, (media_type, body) in self.stored.items():
            named = path.rpartition("/")[2]
            if "/manifests/sha256:" not in path or json.loads(body).get("subject", {}).get("digest") != digest:
                continue
            found = {"mediaType": media_type, "digest": named, "size": len(body)}
            listed = {key: value for key, value in json.loads(body).items() if key in ("artifactType", "annotations")}
            manifests.append(found | listed)
        return {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}


@contextmanager
def own_registry() -> Iterator[OwnRegistry]:
    """Serves on loopback until the block ends."""
    known = OwnRegistry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            said = self.headers.get("Authorization")
            known.asked.append(("GET", self.path, said))
            if path == "/token":
                self._say(*((403, "", b"") if known.refuses_everybody else (200, "", _json({"token": TOKEN}))))
            elif known.challenge is not None:
                self._say(401, "", b"", {"WWW-Authenticate": known.challenge})
            elif known.wants_token and said != f"Bearer {TOKEN}":
                realm = f'Bearer realm="http://{known.host}/token",service="{known.host}",scope="repository:x:pull"'
                self._say(401, "", b"", {"WWW-Authenticate": realm})
            else:
                self._say(*known.answer(path))

        def do_POST(self) -> None:
            self._say(202, "", b"", {"Location": f"{self.path}1"})

        def do_PUT(self) -> None:
            parts, data = urlsplit(self.path), self.rfile.read(int(self.headers["Content-Length"]))
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            if "/uploads/" in parts.path:
                assert parse_qs(parts.query)["digest"] == [digest]
                known.stored[f"{parts.path.partition('uploads/')[0]}{digest}"] = ("application/octet-stream", data)
            else:
                folder = parts.path.rpartition("/")[0]
                for path in (parts.path, f"{folder}/{digest}"):
                    known.stored[path] = (self.headers["Content-Type"], data)
            self._say(201, "", b"")

        def _say(self, status: int, media_type: str, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {
                "Content-Type": media_type,
                "Content-Length": str(len(body)),
                **(headers or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    known.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield known
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may have read enough
            super().handle_error(request, client_address)


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()
