"""Snapshots under their mounts, as an ordinary ASGI app. GET and HEAD, with ETags."""

from collections.abc import Callable, Mapping

from starlette.types import Receive, Scope, Send

from server.hosting.snapshot import Answer, Redirect, Snapshot

Headers = list[tuple[bytes, bytes]]

_NOT_FOUND = Answer(
    b'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
    b'<meta name="color-scheme" content="light dark">\n<title>Not found</title>\n'
    b"<h1>Not found</h1>\n<p>There is no page at this address.</p>\n</html>\n",
    "text/html; charset=utf-8",
    "",
)
_ALLOW = (b"allow", b"GET, HEAD")


class Hosting:
    """Answers from the snapshots that `mounts` has at the time, by first path segment."""

    def __init__(self, mounts: Callable[[], Mapping[str, Snapshot]]) -> None:
        self._mounts = mounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} here")
        status, headers, body = self._respond(scope)
        if status != 304:  # there it would have to be that of the 200 (RFC 9110 section 8.6)
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _respond(self, scope: Scope) -> tuple[int, Headers, bytes]:
        raw = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
        target = raw.decode("latin-1").partition("?")[0]
        mount, slash, path = target.removeprefix("/").partition("/")
        snapshot = self._mounts().get(mount)
        if snapshot is None:
            return _missing(None)
        found = snapshot.look_up(path) if slash else Redirect(f"{mount}/")
        if found is None:
            return _missing(snapshot.not_found)
        if scope["method"] not in ("GET", "HEAD"):
            return (
                405,
                [_ALLOW, (b"content-type", b"text/plain; charset=utf-8")],
                b"Only GET and HEAD are answered here.\n",
            )
        if isinstance(found, Redirect):
            return _moved(found, scope["query_string"])
        return _ok(found, scope["headers"])


def _missing(page: Answer | None) -> tuple[int, Headers, bytes]:
    page = page or _NOT_FOUND
    return 404, [(b"content-type", page.media_type.encode()), (b"cache-control", b"no-cache")], page.body


def _moved(redirect: Redirect, query: bytes) -> tuple[int, Headers, bytes]:
    # Relative, by last segment: it can never name another host. "./" keeps a colon from reading as a scheme.
    location = b"./" + redirect.location.encode("ascii") + (b"?" + query if query else b"")
    return 308, [(b"location", location)], b""


def _ok(answer: Answer, headers: Headers) -> tuple[int, Headers, bytes]:
    ours: Headers = [(b"etag", answer.etag.encode()), (b"cache-control", b"no-cache")]
    if _matches(answer.etag, [value for name, value in headers if name == b"if-none-match"]):
        return 304, ours, b""
    return 200, [(b"content-type", answer.media_type.encode()), *ours], answer.body


def _matches(etag: str, conditions: list[bytes]) -> bool:
    """If-None-Match: a list, weak comparison, or any (RFC 9110 section 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for value in conditions for tag in value.decode("latin-1").split(",")]
    return etag in tags or "*" in tags
