"""`serve --reload`, for whoever writes a site: what changes below the sites folder, and what open pages hear of it.

Owns the watching, the stream of events at /_doorbell/reload, and the element that static/reload.js is put into pages
with. Knows neither how sites are read nor what is served. Nothing of it is there in production.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from server import log

_log = log.get(__name__)

router = APIRouter(prefix="/_doorbell", include_in_schema=False)

SCRIPT = "reload.js"

# How often a page asks again for a server that is being restarted.
_RETRY_MS = 1000
# What is read of a site, by its first name below the site's folder.
_PARTS = frozenset({"site.toml", "public", "parts", "emails"})


class Live:
    """What open pages are told: the version that is served, and what is wrong with the one that is not.

    Each stream has the newest state, not every one: a page that is behind needs no more.
    """

    def __init__(self) -> None:
        self.wrong = False
        self._message = b""
        self._changed = asyncio.Event()
        self._closed = False

    def tell(self, version: str, problems: Iterable[str] = ()) -> None:
        """Says it to every open page, and to each that comes."""
        state = {"version": version, "problems": list(problems)}
        self.wrong = bool(state["problems"])
        self._message = b"data: %s\n\n" % json.dumps(state).encode()
        self._wake()

    def close(self) -> None:
        """Ends every stream: a server that stops would wait for them."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def events(self) -> AsyncIterator[bytes]:
        """One page's stream (WHATWG HTML section 9.2)."""
        yield b"retry: %d\n\n" % _RETRY_MS
        while not self._closed:
            changed = self._changed  # before the message is taken: what is said while it is sent is not missed
            yield self._message
            await changed.wait()


@router.get("/reload")
async def events(request: Request) -> Response:
    """What open pages listen to. For every host: a site may be looked at on its own."""
    live: Live = request.app.state.live
    return StreamingResponse(live.events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


def element(version: str) -> str:
    """What stands in each page. With the version that the page is of: it may be another by the time it listens."""
    return f'<script src="/_doorbell/{SCRIPT}" data-version="{version}" defer></script>'


def version(files: Iterable[Path]) -> str:
    """Names the state of these files: another one when any was written, the same after a restart."""
    found = hashlib.blake2b(digest_size=12)
    for file in sorted(files):
        try:
            status = os.stat(file)
        except OSError:
            continue
        found.update(f"{file}\0{status.st_ino} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "replace"))
    return found.hexdigest()


def matters(path: str, *, wrong: bool) -> bool:
    """Whether a change of `path` (from the sites folder) is one of a site: not what is never read, nor what an editor
    leaves beside a file while it is open.

    With something `wrong` the latter counts too: that it went while it was being read may be what was wrong.
    """
    names = path.split(os.sep)
    hidden = any(name.startswith(".") and name != ".well-known" for name in names)
    if hidden or (len(names) > 1 and names[1] not in _PARTS):
        return False
    return wrong or not _is_temporary(names[-1])


def _is_temporary(name: str) -> bool:
    # Emacs and others "name~", Emacs "#name#", Vim "4913" (may it write here?), JetBrains "name___jb_tmp___".
    return name.endswith(("~", ".tmp", "___jb_tmp___", "___jb_old___", ".crswap")) or name == "4913" or name[:1] == "#"


@asynccontextmanager
async def watching(folder: Path, live: Live, changed: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Calls `changed` after each burst of changes below `folder`; what changes during the call makes another."""
    task = asyncio.create_task(_watch(folder, live, changed))
    await asyncio.sleep(0)  # from here on nothing is missed
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _watch(folder: Path, live: Live, changed: Callable[[], Awaitable[None]]) -> None:
    from watchfiles import awatch  # here, for production has no use for it

    root = os.path.realpath(folder)  # what some systems name changes by

    def wanted(_: object, path: str) -> bool:
        return matters(os.path.relpath(path, root), wrong=live.wrong)

    try:
        async with aclosing(awatch(root, watch_filter=wanted)) as bursts:
            async for _ in bursts:
                await changed()
    except Exception as error:
        # Too many folders for inotify, mostly. What is served is served on.
        _log.error("reload.stopped", reason=str(error))
