"""What each host serves: the snapshots of its sites, merged into one table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Protocol

from server.hosting import media_types
from server.hosting.files import SnapshotError
from server.hosting.pages import Press
from server.hosting.paths import canonical
from server.hosting.resource import Entry, ErrorPage, Fields
from server.hosting.shelf import Shelf
from server.hosting.snapshot import Mount, Snapshot
from server.hosting.source import Source

_NOWHERE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Not found</title>
<h1>Not found</h1>
<p>There is no page at this address.</p>
</html>
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """One host. `entries` by raw request target; `snapshots` by first path segment, "" for one at the root.

    `api` are first segments that are answered elsewhere where no entry is.
    """

    entries: Mapping[bytes, Entry]
    snapshots: Mapping[str, Snapshot]
    api: frozenset[str]

    def find(self, target: bytes, fields: Fields) -> tuple[Entry | None, bytes]:
        """What `target` (origin-form, RFC 9112 section 3.2.1) asks for, and its query. None: nothing of ours."""
        raw, _, query = target.partition(b"?")
        entry = self.entries.get(raw)
        if entry is not None:
            return entry, query
        path = canonical(raw.decode("latin-1"))
        if path is not None and (entry := self.entries.get(path.encode("ascii"))) is not None:
            return entry, query
        return self._miss(raw, path, fields), query

    def _miss(self, raw: bytes, path: str | None, fields: Fields) -> Entry | None:
        if not raw.startswith(b"/"):
            return None
        segment = (path or raw.decode("latin-1"))[1:].partition("/")[0]
        if segment in self.api:
            return None
        if (root := self.snapshots.get("")) is not None:
            return root.miss(path, fields)
        if (snapshot := self.snapshots.get(segment)) is not None:
            return snapshot.miss(path and path[len(segment) + 1 :], fields)
        return None


@dataclass(frozen=True, slots=True)
class Published:
    """Everything that is hosted. `default` answers hosts that no site claims.

    `files` says how many of each source, `held` how many bytes are in memory, `digests` of which contents.
    """

    default: Origin
    hosts: Mapping[str, Origin]
    files: Mapping[str, int]
    held: int
    digests: frozenset[str]
    # Whole requests, and head and body of their answers, kept by the lane: they go when the sites are swapped.
    seen: dict[bytes, tuple[bytes, bytes | memoryview]] = field(default_factory=dict)

    def find(self, target: bytes, fields: Fields) -> tuple[Entry | None, bytes]:
        """What is asked for, and the query. None: nothing of ours, or a request that is not in order."""
        host = fields.get(b"host", b",")
        if b"," in host:
            return None, b""
        origin = self.origin(host) if self.hosts else self.default
        entry = origin.entries.get(target)
        return (entry, b"") if entry is not None else origin.find(target, fields)

    def origin(self, host: bytes) -> Origin:
        """The origin that a Host field names: whatever its port, its case or a final dot."""
        return self.hosts.get(_name(host), self.default)


class Serving(Protocol):
    """Whoever knows what is published just now."""

    published: Published


@lru_cache(maxsize=1024)
def _name(host: bytes) -> str:
    name = host[:300].decode("latin-1").strip().lower()
    return name.rpartition(":")[0].rstrip(".") if name.rpartition(":")[2].isdigit() else name.rstrip(".")


def publish(
    sources: Iterable[Source],
    shelf: Shelf,
    *,
    defaults: Mapping[str, str],
    reserved: frozenset[str],
    public: frozenset[str],
) -> Published:
    """Reads every source and finishes every answer.

    `defaults` are header fields of all answers. `reserved` are the first path segments that the program answers
    itself, `public` those of them that it answers on the hosts of sites too. Raises SnapshotError with every problem.
    """
    sources = tuple(sources)
    contents = shelf.take({file: _helps(source, name) for source in sources for name, file in source.files.items()})
    press = Press(defaults)
    nowhere = _nowhere(press)
    problems: list[str] = []
    default: dict[str, Snapshot] = {}
    hosts: dict[str, dict[str, Snapshot]] = {}
    for source in sources:
        try:
            pages = press.pages(source, contents)
            problems += _hidden(source, pages, reserved)
            source = replace(source, files={})  # they are not needed again, and many
            default[source.name] = Mount(press, source, pages, f"/{source.name}/").snapshot(nowhere)
            for host in source.hosts:
                hosts[host] = {"": Mount(press, source, pages, "/").snapshot(nowhere)}
        except SnapshotError as error:
            problems += error.problems
    if problems:
        raise SnapshotError(problems)
    shared = {name: default[name] for name in public & default.keys()}
    return Published(
        _origin(default, reserved),
        MappingProxyType({host: _origin(own | shared, public) for host, own in hosts.items()}),
        MappingProxyType({source.name: len(source.files) for source in sources}),
        shelf.held,
        frozenset(shelf.digests),
    )


def _hidden(source: Source, paths: Iterable[str], reserved: frozenset[str]) -> list[str]:
    """Files that the program's own addresses would hide on the hosts of a site."""
    found = {path.split("/")[1].removesuffix(".html") for path in paths} & reserved if source.hosts else ()
    return [f"{source.name}: a site with hosts cannot have /{segment}: the server answers there" for segment in found]


def _helps(source: Source, name: str) -> bool:
    return source.compressed and media_types.compressible(media_types.guess(name))


def _origin(snapshots: Mapping[str, Snapshot], api: frozenset[str]) -> Origin:
    entries: dict[bytes, Entry] = {}
    for snapshot in snapshots.values():
        entries |= snapshot.entries
    return Origin(entries, MappingProxyType(dict(snapshots)), api)


def _nowhere(press: Press) -> Entry:
    fields = press.fields(Source("", {}), "/404.html", media_types.guess("404.html"))
    return ErrorPage.of(404, press.made("/404.html", _NOWHERE, fields).resource, fields)
