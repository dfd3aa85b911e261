"""The contents of files, each once: in memory as far as the budget goes, else where they lie on the disk."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from server.hosting.files import SnapshotError
from server.hosting.resource import Part
from server.hosting.variants import Cache, Variant, VariantError
from server.progress import Progress, silent

# Files are taken smallest first, so that what is left for the disk is few and large.
Sizes = list[tuple[int, Path]]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A content in one coding. `digest` is of these very bytes."""

    coding: bytes
    digest: str
    size: int
    body: bytes | Part


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file, and of its variants, smallest first. `modified` is in Unix seconds."""

    identity: Encoded
    modified: float
    variants: tuple[Encoded, ...] = ()


_NONE: Mapping[Path, Content] = MappingProxyType({})


def encoded(body: bytes) -> Encoded:
    """A content as it is."""
    return Encoded(b"identity", digest(body), len(body), body)


def digest(body: bytes) -> str:
    """What names a content: 12 bytes, strong enough for an ETag and short."""
    return _digest(body).hexdigest()


def _digest(body: bytes = b"") -> "hashlib.blake2b":
    return hashlib.blake2b(body, digest_size=12)


@dataclass
class Shelf:
    """Takes files in. `budget` is in bytes, variants included; `held` is how many are in memory.

    `before` are the contents that are in memory already: they are not held twice. `contents` are those that were
    taken in, by digest, in each coding.
    """

    cache: Cache | None
    budget: int
    progress: Progress = silent
    held: int = 0
    before: Mapping[str, Encoded] = field(default_factory=dict)
    contents: dict[str, Encoded] = field(default_factory=dict)

    def take(self, files: Mapping[Path, bool], composed: Mapping[Path, Content] = _NONE) -> dict[Path, Content]:
        """Reads every file; the flag says whether compressing can help. Raises SnapshotError with all that fail.

        Files that are among `composed` are not read: what is there lies nowhere on the disk, so it is held, budget or
        not.
        """
        contents = {path: self._kept(content.identity, content.modified) for path, content in composed.items()}
        problems: list[str] = []
        for _, path in _by_size([path for path in files if path not in composed], problems):
            try:
                contents[path] = self._read(path)
            except OSError as error:
                problems.append(_unreadable(path, error))
        if problems:
            raise SnapshotError(problems)
        return self._with_variants(files, contents)

    def _read(self, path: Path) -> Content:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            room = self.held + status.st_size <= self.budget
            found = encoded(file.read()) if room else _left(file, path, status)
        return self._kept(found, status.st_mtime)

    def _kept(self, found: Encoded, modified: float) -> Content:
        if found.digest not in self.contents:
            self.contents[found.digest] = self._once(found)
            self.held += found.size if isinstance(found.body, bytes) else 0
        return Content(self.contents[found.digest], modified)

    def _once(self, found: Encoded) -> Encoded:
        before = self.before.get(found.digest)
        both = before is not None and isinstance(before.body, bytes) and isinstance(found.body, bytes)
        return before if before is not None and both else found

    def _with_variants(self, files: Mapping[Path, bool], contents: dict[Path, Content]) -> dict[Path, Content]:
        if self.cache is None:
            return contents
        bodies = {path: content.identity for path, content in contents.items() if files[path]}
        wanted = {one.digest: path if isinstance(one.body, Part) else one.body for path, one in bodies.items()}
        made = self.cache.variants(wanted, self.progress)
        loaded = {digest: self._variants(made[digest]) for digest in wanted}
        return {
            path: Content(content.identity, content.modified, loaded.get(content.identity.digest, ()))
            for path, content in contents.items()
        }

    def _variants(self, variants: tuple[Variant, ...]) -> tuple[Encoded, ...]:
        """None of them if the disk has spoilt one: they lie in one file, which is made again at the next start."""
        try:
            return tuple(map(self._variant, variants))
        except (OSError, VariantError):
            return ()

    def _variant(self, variant: Variant) -> Encoded:
        if self.held + variant.length <= self.budget:
            found = Encoded(variant.coding, variant.digest, variant.length, variant.read())
            self.held += variant.length
            self.contents[variant.digest] = self._once(found)
            return self.contents[variant.digest]
        variant.verify()
        part = Part(str(variant.file), variant.offset, variant.length, stamp(os.stat(variant.file)))
        return Encoded(variant.coding, variant.digest, variant.length, part)


def read(body: bytes | Part) -> bytes:
    """All of a body, for what is small. Raises OSError."""
    if not isinstance(body, Part):
        return body
    with open(body.file, "rb") as file:
        file.seek(body.offset)
        return file.read(body.length)


def stamp(status: os.stat_result) -> tuple[int, int, int]:
    """What tells that a file is still the one that was read: its inode, size and time of change."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def _by_size(files: Iterable[Path], problems: list[str]) -> Sizes:
    found = []
    for path in files:
        try:
            found.append((os.stat(path).st_size, path))
        except OSError as error:
            problems.append(_unreadable(path, error))
    return sorted(found)


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path}: cannot be read: {error.strerror}"


def _left(file: BinaryIO, path: Path, status: os.stat_result) -> Encoded:
    """A content that stays on the disk: read in pieces, for its digest only."""
    body = Part(str(path), 0, status.st_size, stamp(status))
    return Encoded(b"identity", hashlib.file_digest(file, _digest).hexdigest(), status.st_size, body)  # type: ignore[arg-type]
