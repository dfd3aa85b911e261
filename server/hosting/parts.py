"""Parts of a site that stand in several of its pages, put in where a page includes them.

Owns what may be included and what is wrong with it; `html` knows how it is written. Done when a site is read, so that
what is served is a finished page like every other.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize
from urllib.parse import quote

from server.hosting import html, media_types
from server.hosting.files import SnapshotError, published
from server.hosting.paths import canonical
from server.hosting.shelf import Content, encoded


@dataclass(frozen=True, slots=True)
class _Page:
    """A page that includes something. `path` is canonical, `modified` in Unix seconds."""

    file: Path
    path: str
    text: str
    modified: float
    includes: list[html.Include]


@dataclass(frozen=True, slots=True)
class _Part:
    """What is put in. `modified` is in Unix seconds."""

    text: str
    modified: float


def composed(files: Mapping[str, Path], folder: Path) -> dict[Path, Content]:
    """The pages among `files` that include parts of `folder`, with these in them.

    Raises SnapshotError with each part that is not there, cannot be read, is not UTF-8, or includes something itself.
    """
    pages = list(_including(files))
    if not pages:
        return {}
    parts = published(folder) if os.path.isdir(folder) else {}
    found: dict[Path, Content] = {}
    problems: list[str] = []
    for page in pages:
        try:
            found[page.file] = _whole(page, {one.name: _part(page, one.name, parts) for one in page.includes})
        except SnapshotError as error:
            problems += error.problems
    if problems:
        raise SnapshotError(problems)
    return found


def _including(files: Mapping[str, Path]) -> Iterator[_Page]:
    for name, file in files.items():
        path = canonical(quote("/" + name))
        if path is None or not media_types.is_html(media_types.guess(name)):
            continue
        try:
            body, modified = file.read_bytes(), file.stat().st_mtime
        except OSError:
            continue  # whoever reads it next says so
        # Few pages need to be looked at closely. Bytes that are not UTF-8 come out again as they went in.
        if b"<!--#include" in body and (found := html.includes(text := body.decode("utf-8", "surrogateescape"))):
            yield _Page(file, path, text, modified, found)


def _part(page: _Page, name: str, parts: Mapping[str, Path]) -> _Part:
    """The part of this name. Raises SnapshotError."""
    file = parts.get(normalize("NFC", name))
    if file is None:
        raise SnapshotError([f"{page.file}: includes {name!r}: there is no such file in the site's parts/"])
    try:
        part = _Part(file.read_bytes().decode("utf-8-sig"), file.stat().st_mtime)
    except OSError as error:
        raise SnapshotError([f"{page.file}: includes {file}, which cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise SnapshotError([f"{page.file}: includes {file}, which is not UTF-8"]) from None
    if html.includes(part.text):
        raise SnapshotError([f"{page.file}: includes {file}, which includes something itself: parts do not nest"])
    return part


def _whole(page: _Page, parts: Mapping[str, _Part]) -> Content:
    pieces, done = [], 0
    for include in page.includes:
        pieces += [page.text[done : include.start], html.placed(parts[include.name].text, page.path)]
        done = include.end
    body = "".join([*pieces, page.text[done:]]).encode("utf-8", "surrogateescape")
    # A part that was changed changes the page: who has only its date must not keep the old one.
    return Content(encoded(body), max([page.modified, *(part.modified for part in parts.values())]))
