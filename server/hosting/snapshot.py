"""A folder, read once into an immutable table of what can be asked for and what is answered.

What is not in the table does not exist, so no path can lead out of the folder.
"""

import hashlib
import mimetypes
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from urllib.parse import quote, unquote_to_bytes

# A table of our own, not the machine's: it differs between machines (on Windows a registry calls .js text/plain).
_TYPES = mimetypes.MimeTypes(filenames=())
for _type, _suffix in (
    ("text/javascript", ".js"),
    ("text/javascript", ".mjs"),
    ("application/manifest+json", ".webmanifest"),
    ("image/avif", ".avif"),
    ("image/webp", ".webp"),
    ("image/x-icon", ".ico"),
    ("font/woff", ".woff"),
    ("font/woff2", ".woff2"),
    ("text/markdown", ".md"),
):
    _TYPES.add_type(_type, _suffix)
_TEXTUAL = ("application/json", "application/manifest+json", "application/xml", "image/svg+xml")

# Rules for the host, not pages of the site.
_NEVER = frozenset({"_headers", "_redirects"})


class SnapshotError(Exception):
    """A folder that cannot be published; `problems` has a line each, naming the file."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer. `etag` is strong, by content, with its quotes (RFC 9110 section 8.8.3)."""

    body: bytes
    media_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class Redirect:
    """The same, one slash further. `location` is relative."""

    location: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a site answers, by path below its root: percent-encoded, no leading slash, "" for its first page."""

    table: Mapping[str, Answer | Redirect]
    not_found: Answer | None

    def look_up(self, path: str) -> Answer | Redirect | None:
        """The answer to `path`, as it stood in the request (still encoded), or None."""
        return self.table.get(path) or self.table.get(_canonical(path) or "\0")

    def __len__(self) -> int:
        return len(self.table)


def load(folder: Path) -> Snapshot:
    """Everything below `folder` that is published. Raises SnapshotError with every file that cannot be."""
    return of(_files(folder))


def of(files: Mapping[str, Path]) -> Snapshot:
    """A snapshot of the given files by their path. Raises SnapshotError."""
    table: dict[str, Answer | Redirect] = {}
    problems = []
    for name, file in files.items():
        try:
            answer = _answer(name, file.read_bytes())
        except OSError as error:
            problems.append(f"{file}: cannot be read: {error.strerror}")
            continue
        path = quote(name)
        table[path] = answer
        folder, _, last = path.rpartition("/")
        if last == "index.html":
            table[f"{folder}/" if folder else ""] = answer
            if folder:
                table.setdefault(folder, Redirect(f"{folder.rpartition('/')[2]}/"))
    if problems:
        raise SnapshotError(problems)
    missing = table.get("404.html")
    return Snapshot(MappingProxyType(table), missing if isinstance(missing, Answer) else None)


def _answer(name: str, body: bytes) -> Answer:
    media_type, encoding = _TYPES.guess_type(PurePosixPath(name).name)
    if media_type is None or encoding:  # a .tar.gz is sent as it lies there, not as a tar that is gzipped on the way
        media_type = "application/octet-stream"
    if media_type.startswith("text/") or media_type in _TEXTUAL:
        media_type += "; charset=utf-8"
    return Answer(body, media_type, f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"')


def _files(folder: Path) -> dict[str, Path]:
    root = folder.resolve()
    found: dict[str, Path] = {}
    problems = []
    for name, file in _walk(folder, PurePosixPath()):
        # os.path and not the methods of Path: they raise where a link leads to itself or a folder is locked.
        if not Path(os.path.realpath(file)).is_relative_to(root):
            problems.append(f"{_printable(file)}: is a link that leads out of the site")
        elif not os.path.isfile(file):
            problems.append(f"{_printable(file)}: is no file, or cannot be read")
        elif _printable(file) != str(file):
            problems.append(f"{_printable(file)}: has a name that is not UTF-8")
        else:
            found[name] = file
    if problems:
        raise SnapshotError(problems)
    return found


def _printable(file: Path) -> str:
    return os.fsencode(file).decode("utf-8", "replace")


def _walk(folder: Path, below: PurePosixPath) -> Iterator[tuple[str, Path]]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise SnapshotError([f"{folder}: cannot be read: {error.strerror}"]) from None
    for entry in entries:
        name = below / entry.name
        if entry.name.startswith(".") and entry.name != ".well-known":
            continue
        if os.path.isdir(entry) and not entry.is_symlink():
            yield from _walk(entry, name)
        elif str(name) not in _NEVER:
            yield str(name), entry


def _canonical(path: str) -> str | None:
    """The one spelling that the table uses. An encoded slash is no slash; what is not UTF-8 is nowhere."""
    if "%2f" in path.lower():
        return None
    try:
        return quote(unquote_to_bytes(path).decode("utf-8"))
    except UnicodeDecodeError:
        return None
