"""Several requests in one: multipart/mixed with a request in every part, answered one after another."""

import secrets
from collections.abc import Callable, Iterator
from email.message import Message
from email.parser import BytesParser
from http.client import responses
from io import BytesIO
from urllib.parse import parse_qsl, urlsplit

from infra.localcloud.storage.errors import bad_request
from infra.localcloud.storage.messages import Body, Media, Request, Response

MOST_PARTS = 100  # of the real service


def answer_batch(answer: Callable[[Request], Response], request: Request) -> Response:
    """Asks `answer` for each part. Only what has neither media to send nor to receive may be in a batch."""
    head = f"Content-Type: {request.headers.get('content-type', '')}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + request.body.everything())
    parts = message.get_payload() if message.is_multipart() else []
    if not parts or len(parts) > MOST_PARTS:
        raise bad_request(f"A batch has 1 to {MOST_PARTS} requests, not {len(parts)}.")
    boundary = f"batch_{secrets.token_hex(16)}"
    written = bytearray()
    for part in parts:
        assert isinstance(part, Message)
        asked = _request_in(part, request)
        reply = answer(asked)
        if isinstance(reply.body, Media):
            reply.body.opened.close()
            raise bad_request("A batch cannot download.")
        written += f"--{boundary}\r\n".encode() + b"".join(_part(part.get("Content-ID", ""), reply))
    written += f"--{boundary}--\r\n".encode()
    return Response(200, {"Content-Type": f"multipart/mixed; boundary={boundary}"}, bytes(written))


def _request_in(part: Message, around: Request) -> Request:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        raise bad_request("A part of the batch is no HTTP request.")
    stream = BytesIO(payload)
    words = stream.readline().decode("latin-1").split()
    if len(words) < 2:
        raise bad_request("A part of the batch is no HTTP request.")
    headers = {}
    for line in iter(stream.readline, b""):
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            break
        headers[name.strip().lower()] = value.strip()
    headers.setdefault("authorization", around.headers.get("authorization", ""))
    if not headers["authorization"]:
        del headers["authorization"]
    body = stream.read().strip()
    url = urlsplit(words[1])
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    return Request(
        method=words[0],
        path=url.path,
        query=query,
        headers=headers,
        body=Body(BytesIO(body), len(body)),
        base_url=around.base_url,
        port=around.port,
        connection=around.connection,
    )


def _part(id: str, reply: Response) -> Iterator[bytes]:
    yield b"Content-Type: application/http\r\n"
    if id:
        yield f"Content-ID: <response-{id.strip('<>')}>\r\n".encode()
    assert isinstance(reply.body, bytes)
    yield f"\r\nHTTP/1.1 {reply.status} {responses.get(reply.status, 'Unknown')}\r\n".encode()
    for name, value in reply.headers.items():
        yield f"{name}: {value}\r\n".encode()
    yield f"Content-Length: {len(reply.body)}\r\n\r\n".encode() + reply.body + b"\r\n"
