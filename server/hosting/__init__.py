"""Static sites: files become finished answers at start, and a request is a look-up. Knows no SQL and no mail."""

from server.hosting.asgi import Hosting
from server.hosting.snapshot import Snapshot, SnapshotError, load, of

__all__ = ["Hosting", "Snapshot", "SnapshotError", "load", "of"]
