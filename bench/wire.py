"""A request on a plain socket, and whether the answer is the right one. An HTTP library would hide half of it."""

import gzip
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import brotli
import zstandard


class WrongAnswer(Exception):
    """A server that does not say what it should; the message says what it said instead."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `size` counts the bytes on the wire, head and body; names of fields are in lower case."""

    status: int
    fields: Mapping[str, str]
    body: bytes
    size: int

    def decoded(self) -> bytes:
        """The body without its encoding."""
        coding = self.fields.get("content-encoding", "identity")
        if coding == "identity":
            return self.body
        if coding == "gzip":
            return gzip.decompress(self.body)
        if coding == "br":
            return bytes(brotli.decompress(self.body))
        if coding == "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(self.body)
        raise WrongAnswer(f"sent in the unknown encoding {coding!r}")


def fetch(port: int, target: str, fields: Mapping[str, str], body: bytes | None = None) -> Answer:
    """GET with the header that wrk would send, or POST of a `body`. Raises WrongAnswer where no whole answer comes."""
    lines = [
        f"{'GET' if body is None else 'POST'} {target} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        *(f"{name}: {value}" for name, value in fields.items()),
        *([] if body is None else [f"Content-Length: {len(body)}"]),
    ]
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + (body or b""))
            return _read(connection)
    except OSError as error:
        raise WrongAnswer(f"no answer: {error}") from None


def _read(connection: socket.socket) -> Answer:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    status = int(first.split()[1])
    if status == 304:
        return Answer(status, fields, body, len(data))
    if fields.get("transfer-encoding", "").lower() == "chunked":
        content, size = _chunks(connection, body)
        return Answer(status, fields, content, len(head) + 4 + size)
    if not fields.get("content-length", "").isdigit():
        raise WrongAnswer(f"{status} without a length")
    length = int(fields["content-length"])
    parts, got = [body], len(body)
    while got < length:
        parts.append(_more(connection))
        got += len(parts[-1])
    return Answer(status, fields, b"".join(parts), len(head) + 4 + length)


def _chunks(connection: socket.socket, data: bytes) -> tuple[bytes, int]:
    """A chunked body (RFC 9112 section 7.1) without trailers, and its size on the wire; `data` is what came already."""
    content, place = b"", 0
    while True:
        while (end := data.find(b"\r\n", place)) < 0:
            data += _more(connection)
        length = int(data[place:end].partition(b";")[0], 16)
        place = end + 2
        while len(data) < place + length + 2:
            data += _more(connection)
        content += data[place : place + length]
        place += length + 2
        if not length:
            return content, place


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 20)
    if not data:
        raise WrongAnswer("the connection was closed in the middle of an answer")
    return data


def check(answer: Answer, *, status: int, content: bytes, encoded: bool) -> None:
    """Raises WrongAnswer unless the status is this one, the content (decoded) too, and encoded as it should be."""
    coding = answer.fields.get("content-encoding", "identity")
    if answer.status != status:
        raise WrongAnswer(f"answers {answer.status}, not {status}")
    if encoded != (coding != "identity"):
        raise WrongAnswer(f"sends it in the encoding {coding}")
    if answer.decoded() != content:
        raise WrongAnswer(f"sends {len(answer.body)} bytes that are not the right ones")
