"""Static sites: files become finished answers at start, and a request is a look-up. Knows no SQL and no mail."""

from server.hosting.asgi import Hosting
from server.hosting.files import SnapshotError
from server.hosting.origin import Published, Serving, publish
from server.hosting.rules import headers
from server.hosting.shelf import Content, Encoded, Shelf, encoded
from server.hosting.source import Source, read
from server.hosting.variants import Cache

__all__ = [
    "Cache",
    "Content",
    "Encoded",
    "Hosting",
    "Published",
    "Serving",
    "Shelf",
    "SnapshotError",
    "Source",
    "encoded",
    "headers",
    "publish",
    "read",
]
