"""The server itself: who may talk to it, how it starts and ends, and the parts of HTTP that clients lean on."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from infra.localcloud.storage import StorageServer, start
from job.errors import UsageError

ROOT = Path(__file__).parents[3]


def asked(server: StorageServer, headers: dict[str, str]) -> int:
    return httpx.get(f"{server.url}/storage/v1/b/bucket/o", headers=headers).status_code


def test_programs_of_this_machine_are_answered_and_web_pages_are_not(server: StorageServer) -> None:
    port = server.url.rpartition(":")[2]
    assert asked(server, {}) == 200
    assert asked(server, {"Host": f"localhost:{port}"}) == 200
    assert asked(server, {"Host": "evil.example"}) == 403
    assert asked(server, {"Host": f"evil.example:{port}"}) == 403
    assert asked(server, {"Host": "127.0.0.1:1"}) == 403
    assert asked(server, {"Origin": "https://evil.example"}) == 403
    assert asked(server, {"Origin": "null"}) == 403
    assert asked(server, {"Origin": server.url}) == 200
    armed = httpx.post(f"{server.url}/_faults", json={"kind": "503"}, headers={"Origin": "https://evil.example"})
    assert armed.status_code == 403
    assert server.faults.armed() == []


def test_it_listens_on_loopback_only(server: StorageServer) -> None:
    port = int(server.url.rpartition(":")[2])
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in line]
    assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_the_command_prints_its_address_and_ends_when_it_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.localcloud.storage", "--root", str(tmp_path / "root"), "--bucket", "b-1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        try:
            assert httpx.get(f"{url}/storage/v1/b/b-1").json()["name"] == "b-1"
            port = url.rpartition(":")[2]
            second = subprocess.run([*command, "--port", port], env=environment, capture_output=True, text=True)
            assert second.returncode == 2
            assert "Another server uses" in second.stderr
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert process.stdout.read() == ""
        finally:
            process.kill()


def test_a_port_that_is_taken_is_a_clear_error(server: StorageServer) -> None:
    with pytest.raises(UsageError, match="Address already in use"), start(port=int(server.url.rpartition(":")[2])):
        pass


def test_a_server_that_stops_ends_idle_connections() -> None:
    threads = threading.active_count()
    with httpx.Client() as client:
        with start() as server:
            assert client.get(f"{server.url}/storage/v1/b").status_code == 200
            assert threading.active_count() == threads + 2  # the server's, and that of this connection
        assert threading.active_count() == threads
        with pytest.raises(httpx.HTTPError):
            client.get(f"{server.url}/storage/v1/b")


def test_many_requests_go_through_one_connection(server: StorageServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]))
    connection.connect()
    opened = connection.sock
    for number in range(5):
        connection.request("POST", f"/upload/storage/v1/b/bucket/o?uploadType=media&name=n{number}", body=b"x" * 100)
        assert connection.getresponse().read()
        connection.request("GET", "/storage/v1/b/bucket/o/missing")
        assert connection.getresponse().read()
        connection.request("POST", "/upload/storage/v1/b/no-bucket/o?uploadType=media&name=x", body=b"x" * 3_000_000)
        assert connection.getresponse().read()  # an error is answered after the whole body was taken
        connection.request("HEAD", f"/bucket/n{number}")
        response = connection.getresponse()
        assert (response.status, response.getheader("content-length"), response.read()) == (200, "100", b"")
    assert connection.sock is opened
    connection.close()


def test_a_body_in_chunks_of_unknown_length_is_taken(server: StorageServer) -> None:
    pieces = [b"a" * 100_000, b"b", b"c" * 700_000]
    url = f"{server.url}/upload/storage/v1/b/bucket/o?uploadType=media&name=chunked"
    assert httpx.post(url, content=iter(pieces)).json()["size"] == "800001"
    assert httpx.get(f"{server.url}/storage/v1/b/bucket/o/chunked?alt=media").content == b"".join(pieces)
    part = json.dumps({"name": "both"}).encode()
    body = b"--m\r\n\r\n" + part + b"\r\n--m\r\n\r\ndata\r\n--m--\r\n"
    headers = {"Content-Type": "multipart/related; boundary=m"}
    url = f"{server.url}/upload/storage/v1/b/bucket/o?uploadType=multipart"
    assert httpx.post(url, content=iter([body[:10], body[10:]]), headers=headers).json()["size"] == "4"


@pytest.mark.parametrize("request_line", [b"", b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"])
def test_what_is_no_http_ends_that_connection_only(server: StorageServer, request_line: bytes) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
        connection.sendall(request_line)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(20)
        while connection.recv(4096):
            pass
    assert asked(server, {}) == 200


def test_a_client_that_goes_away_leaves_nothing_behind(server: StorageServer) -> None:
    port = int(server.url.rpartition(":")[2])
    head = b"POST /upload/storage/v1/b/bucket/o?uploadType=media&name=half HTTP/1.1\r\nContent-Length: 1000000\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head + f"Host: 127.0.0.1:{port}\r\n\r\n".encode() + b"x" * 500_000)
        while not list(server.store.data.folder.iterdir()):  # it has begun to take the bytes
            threading.Event().wait(0.01)
    while not server.accounting.last():
        threading.Event().wait(0.01)
    assert [entry["status"] for entry in server.accounting.last()] == [0]
    assert list(server.store.data.folder.iterdir()) == []
    assert httpx.get(f"{server.url}/storage/v1/b/bucket/o/half").status_code == 404


def test_a_bug_in_the_server_is_not_retried_by_clients(
    server: StorageServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server.store, "get", lambda *_: 1 / 0)
    httpx.post(f"{server.url}/upload/storage/v1/b/bucket/o?uploadType=media&name=x", content=b"")
    answer = httpx.get(f"{server.url}/storage/v1/b/bucket/o/x")
    assert answer.status_code == 501
    assert "ZeroDivisionError" in answer.json()["error"]["message"]
    assert "ZeroDivisionError" in capfd.readouterr().err
