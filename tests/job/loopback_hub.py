"""A Hugging Face Hub on loopback: the few answers that the real client needs, from folders on disk."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

BLOCK_BYTES = 1 << 20


@dataclass
class Hub:
    """What the server knows. `commits` and `refs` may be changed while it runs."""

    commits: dict[str, Path] = field(default_factory=dict)
    """Commit (40 hex digits) to the folder with its files."""
    refs: dict[str, str] = field(default_factory=dict)
    """Branch or tag to commit."""
    gated: bool = False
    """Refuses whoever brings no token."""
    requests: list[str] = field(default_factory=list)
    before_block: Callable[[str], None] = lambda name: None
    """Called with a file's name before every BLOCK_BYTES of it: a slow network."""
    url: str = ""

    def move(self, ref: str, folder: Path) -> str:
        """Points `ref` at a new commit with the files of `folder`; returns the commit."""
        commit = hashlib.sha1(f"{folder}{len(self.commits)}".encode()).hexdigest()
        self.commits[commit] = folder
        self.refs[ref] = commit
        return commit


@contextmanager
def serving(repo: str) -> Iterator[Hub]:
    """Serves one model repository, `repo`, on a free port."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            path = unquote(self.path.partition("?")[0])
            hub.requests.append(f"{self.command} {path}")
            if hub.gated and "Authorization" not in self.headers:
                self.reply(401, {"X-Error-Code": "GatedRepo"}, b"{}", with_body)
            elif path.startswith(f"/api/models/{repo}"):
                self.answer_api(path.removeprefix(f"/api/models/{repo}"), with_body)
            elif path.startswith(f"/{repo}/resolve/"):
                commit, _, name = path.removeprefix(f"/{repo}/resolve/").partition("/")
                self.answer_file(commit, name, with_body)
            else:
                self.reply(404, {"X-Error-Code": "RepoNotFound"}, b"{}", with_body)

        def answer_api(self, rest: str, with_body: bool) -> None:
            ref = (rest.removeprefix("/revision/").removeprefix("/tree/") or "main").partition("/")[0]
            commit = hub.refs.get(ref, ref)
            if commit not in hub.commits:
                self.reply(404, {"X-Error-Code": "RevisionNotFound"}, b"{}", with_body)
                return
            names = sorted(path.name for path in hub.commits[commit].iterdir())
            if rest.startswith("/tree/"):
                answer: object = [
                    {"type": "file", "path": name, "size": (hub.commits[commit] / name).stat().st_size, "oid": "0" * 40}
                    for name in names
                ]
            else:
                answer = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in names]}
            self.reply(200, {"Content-Type": "application/json"}, json.dumps(answer).encode(), with_body)

        def answer_file(self, ref: str, name: str, with_body: bool) -> None:
            commit = hub.refs.get(ref, ref)
            file = hub.commits[commit] / name
            if not file.is_file():
                self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b"", with_body)
                return
            data = file.read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": commit}
            self.reply(200, headers, data, with_body, name)

        def reply(self, status: int, headers: dict[str, str], body: bytes, with_body: bool, file: str = "") -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                with contextlib.suppress(ConnectionError):  # a client that was killed
                    for at in range(0, len(body), BLOCK_BYTES):
                        hub.before_block(file)
                        self.wfile.write(body[at : at + BLOCK_BYTES])

        def log_message(self, *_: object) -> None:
            """The test reads `hub.requests` instead."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
