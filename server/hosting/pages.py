"""What the files of a source answer, wherever it is mounted: header fields, validators, encodings."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from server.hosting import html, media_types, rules
from server.hosting.files import SnapshotError
from server.hosting.paths import address, canonical
from server.hosting.resource import Headers, Representation, Resource, lines
from server.hosting.shelf import Content, Encoded, encoded, read
from server.hosting.source import Source

REVALIDATED = "no-cache"
ONE_HOUR = "public, max-age=3600"
FOR_EVER = "public, max-age=31536000, immutable"
# For pages that are given none. What it does not name falls back to default-src; the rest has no fallback.
POLICY = "default-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'; object-src 'none'"
# Builds that pin times use 0, 1, or the first day that a zip file knows: dates that say nothing.
_FIRST_DAY = 315_619_200


# How bundlers write a hash in a name, and how often it must change between capitals, small letters and digits.
_HASHES = ((re.compile(r"[0-9a-f]{8,64}"), 3), (re.compile(r"[A-Za-z0-9_]{8}"), 5))


@dataclass(frozen=True, slots=True)
class Page:
    """A file of a source. `path` is that of the file below the source's root, in canonical spelling."""

    path: str
    fields: Mapping[str, str]
    resource: Resource

    @property
    def is_html(self) -> bool:
        return media_types.is_html(self.fields["content-type"])


@dataclass
class Press:
    """Makes the pages of sources. `defaults` are header fields of every answer.

    What is equal is made once: with many small files it would be most of the memory.
    """

    defaults: Mapping[str, str]
    now: float = field(default_factory=time.time)
    _headers: dict[tuple[tuple[str, str], ...], tuple[Mapping[str, str], Headers]] = field(default_factory=dict)
    _codings: dict[tuple[bytes, ...], tuple[bytes, ...]] = field(default_factory=dict)
    _redirected: dict[str, bytes] = field(default_factory=dict)

    def pages(self, source: Source, contents: Mapping[Path, Content]) -> dict[str, Page]:
        """Every page of `source`, by the path of its file. Raises SnapshotError for names that no URL can hold."""
        paths = {name: canonical(quote("/" + name)) for name in source.files}
        if bad := [name for name, path in paths.items() if path is None]:
            raise SnapshotError([f"{source.files[name]}: has a name that no address can have" for name in bad])
        return {
            path: self._page(source, name, path, contents[source.files[name]])
            for name, path in paths.items()
            if path is not None
        }

    def redirected(self, caching: str) -> bytes:
        """The block of header fields that redirects have."""
        if caching not in self._redirected:
            self._redirected[caching] = lines({**self.defaults, "cache-control": caching})
        return self._redirected[caching]

    def rewritten(self, page: Page, body: str) -> Page:
        """The page with another text."""
        return page if body == text(page) else self.made(page.path, body, page.fields)

    def made(self, path: str, body: str, fields: Mapping[str, str]) -> Page:
        """A page that is no file: not compressed, not dated. `fields` as `fields` gives them."""
        identity = _representation(encoded(body.encode("utf-8", "surrogateescape")), "")
        shared, headers = self._shared(fields)
        return Page(path, shared, Resource(headers, None, identity, (), ()))

    def _page(self, source: Source, name: str, path: str, content: Content) -> Page:
        fields, headers = self._shared(self.fields(source, path, media_types.guess(name)))
        page = Page(path, fields, self._resource(headers, content))
        if source.script and page.is_html:
            return self.rewritten(page, html.injected(text(page), source.script))
        return page

    def fields(self, source: Source, path: str, media_type: str) -> dict[str, str]:
        """The header fields of a file's answers, but for those that depend on its content."""
        fields = {"content-type": media_type, "cache-control": _caching(path, media_type), **self.defaults}
        if media_types.is_document(media_type):
            fields["content-security-policy"] = POLICY
        fields = rules.apply(source.headers, address(path), fields)
        fields.setdefault("content-type", media_type)
        varies = ["accept-encoding"] if media_types.compressible(media_type) else []
        if source.spa and media_types.is_html(media_type):
            varies += ["accept", "sec-fetch-mode"]  # whether a missing page is this one depends on who asks
        if varies:
            fields["vary"] = ", ".join([*varies, *filter(None, [fields.get("vary")])])
        return fields | {"accept-ranges": "bytes"}

    def _resource(self, headers: Headers, content: Content) -> Resource:
        modified = int(min(content.modified, self.now)) if content.modified > _FIRST_DAY else None
        date = "" if modified is None else f"last-modified: {_http_date(modified)}\r\n"
        codings = tuple(variant.coding for variant in content.variants)
        return Resource(
            headers,
            modified,
            _representation(content.identity, date),
            self._codings.setdefault(codings, codings),
            tuple(_representation(variant, date) for variant in content.variants),
        )

    def _shared(self, fields: Mapping[str, str]) -> tuple[Mapping[str, str], Headers]:
        key = tuple(fields.items())
        if key not in self._headers:
            self._headers[key] = fields, Headers.of(fields)
        return self._headers[key]


@lru_cache(maxsize=4096)
def _http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def text(page: Page) -> str:
    """A page's text. What is not UTF-8 in it comes out again as it went in."""
    return read(page.resource.identity.body).decode("utf-8", "surrogateescape")


def _representation(encoded: Encoded, date: str) -> Representation:
    etag = f'"{encoded.digest}"'
    coding = "" if encoded.coding == b"identity" else f"content-encoding: {encoded.coding.decode()}\r\n"
    return Representation(
        etag.encode(),
        f"etag: {etag}\r\n{date}".encode(),
        f"{coding}content-length: {encoded.size}\r\n".encode(),
        encoded.body,
        encoded.size,
    )


def _caching(path: str, media_type: str) -> str:
    if media_types.is_html(media_type):
        return REVALIDATED
    return FOR_EVER if has_content_hash(path.rpartition("/")[2]) else ONE_HOUR


def has_content_hash(name: str) -> bool:
    """Does a file name change with the content, as bundlers have it: `app.3f2a91bc.js`, `index-BkY3z_9d.css`?

    A wrong yes keeps an old file in browsers for a year, a wrong no costs a request an hour: dates (`20240115`), words
    with a number (`Photo123`) are none.
    """
    pieces = re.split(r"[.-]", name)[1:-1]
    return any(pattern.fullmatch(piece) and _changes(piece) >= least for piece in pieces for pattern, least in _HASHES)


def _changes(piece: str) -> int:
    """How often it goes from capitals to small letters to digits: a word seldom does."""
    kinds = ["digit" if char.isdigit() else "upper" if char.isupper() else "lower" for char in piece]
    return len(list(groupby(kinds))) - 1
