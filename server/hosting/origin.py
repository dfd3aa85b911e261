"""What each host serves: the snapshots of its sites, merged into one table."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Protocol

from server.hosting import media_types
from server.hosting.files import SnapshotError
from server.hosting.pages import Press
from server.hosting.paths import canonical
from server.hosting.resource import Entry, Fields, lines
from server.hosting.seen import Seen
from server.hosting.shelf import Encoded, Shelf
from server.hosting.snapshot import Mount, Snapshot
from server.hosting.source import Source


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
        # A fragment is no part of a request's target; many servers cut it off where one is sent all the same.
        raw, _, query = target.partition(b"#")[0].partition(b"?")
        entry = self.entries.get(raw)
        if entry is not None:
            return entry, query
        spelled = raw.decode("latin-1")
        if spelled[1:] in self.api:
            return None, query  # as it is spelled, and so on to the API soon
        path = canonical(spelled)
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

    `files` says how many of each source, `held` how many bytes are in memory, `contents` are those by digest, in
    each coding. `guard` is the block of header fields that errors have.
    """

    default: Origin
    hosts: Mapping[str, Origin]
    files: Mapping[str, int]
    held: int
    contents: Mapping[str, Encoded]
    guard: bytes
    # Kept here by the lane, so that it goes when the sites are swapped.
    seen: Seen = field(default_factory=Seen)

    def find(self, target: bytes, fields: Fields) -> tuple[Entry | None, bytes]:
        """What is asked for, and the query. None: nothing of ours, or a request that is not in order."""
        name = host_name(fields.get(b"host", b""))
        if name is None:
            return None, b""
        origin = self.hosts.get(name, self.default) if self.hosts else self.default
        entry = origin.entries.get(target)
        return (entry, b"") if entry is not None else origin.find(target, fields)


_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~-]{0,254})(?::[0-9]{0,5})?")


class Serving(Protocol):
    """Whoever knows what is published just now."""

    published: Published


def host_name(field: bytes) -> str | None:
    """The host that a Host field names, whatever its port, its case or a final dot; None if it names none.

    RFC 9112 section 3.2; letters, digits and "-._~" of a name are enough for every host that there is.
    """
    return _host_name(field) if len(field) < 300 else None


@lru_cache(maxsize=1024)
def _host_name(field: bytes) -> str | None:
    found = _HOST.fullmatch(field.strip())
    return None if found is None else found[1].decode("ascii").lower().removesuffix(".")


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
    contents = shelf.take(
        {file: _helps(source, name) for source in sources for name, file in source.files.items()},
        {file: content for source in sources for file, content in source.composed.items()},
    )
    press = Press(defaults)
    problems: list[str] = []
    default: dict[str, Snapshot] = {}
    hosts: dict[str, Origin] = {}
    for source in sources:
        try:
            pages = press.pages(source, contents)
            problems += _hidden(source, pages, reserved)
            source = replace(source, files={}, composed={})  # they are not needed again, and many
            default[source.name] = Mount(press, source, pages, f"/{source.name}/").snapshot()
            if source.hosts:
                root = _origin({"": Mount(press, source, pages, "/").snapshot()} | _shared(default, public), public)
                hosts |= dict.fromkeys(source.hosts, root)
        except SnapshotError as error:
            problems += error.problems
    if problems:
        raise SnapshotError(problems)
    return Published(
        _origin(default, reserved),
        MappingProxyType(hosts),
        MappingProxyType({source.name: len(source.files) for source in sources}),
        shelf.held,
        MappingProxyType(shelf.contents),
        lines({**defaults, "cache-control": "no-store"}),
    )


def _shared(snapshots: Mapping[str, Snapshot], public: frozenset[str]) -> dict[str, Snapshot]:
    """What the program ships for pages, on every host. It comes first among the sources."""
    return {name: snapshot for name, snapshot in snapshots.items() if name in public}


def _hidden(source: Source, paths: Iterable[str], reserved: frozenset[str]) -> list[str]:
    """Files and rules at addresses that are the program's own on the hosts of a site."""
    if not source.hosts:
        return []
    asked = {path.split("/")[1].removesuffix(".html"): source.name for path in paths}
    asked |= {rule.source.text.split("/")[1]: rule.where for rule in source.redirects}
    return [
        f"{where}: a site with hosts cannot have /{segment}: the server answers there"
        for segment, where in asked.items()
        if segment in reserved
    ]


def _helps(source: Source, name: str) -> bool:
    return source.compressed and media_types.compressible(media_types.guess(name))


def _origin(snapshots: Mapping[str, Snapshot], api: frozenset[str]) -> Origin:
    entries: dict[bytes, Entry] = {}
    for snapshot in snapshots.values():
        entries |= snapshot.entries
    return Origin(entries, MappingProxyType(dict(snapshots)), api)
