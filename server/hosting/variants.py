"""Compressed variants of files, made once and kept in a folder by the hash of their content.

Owns that folder, the compressors' settings and what is worth keeping. Knows no HTTP, and not which media types are
worth a try. Works in threads: zlib, brotli and zstandard release the GIL (two cores are 1.9 times as fast as one),
and processes would each have to start and import the program a second time.
"""

import hashlib
import os
import queue
import random
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import brotli
import zstandard

from server.progress import Progress, Report

# Above it the best levels take too long: at 4 MiB all three codings together took 7.4 s of one core, and 64 MiB with
# the levels for large files 7.4 s again (minutes with the best).
LARGE = 4 << 20
TOO_LARGE = 64 << 20  # a file above it gets no variants

# Less is not worth its memory: Content-Encoding alone is 25 bytes, and no packet is saved.
LEAST_SAVED = 100
LEAST_SHARE = 0.05

_THREADS = 8  # at most; each may hold a file and the compressor's memory (about 40 MB at 4 MiB)

# One entry: head, check, then the bodies one after another. Change the magic with the layout or the settings.
_MAGIC = b"DBLvar\x00\x01"
_SLOTS = 3
_HEAD = struct.Struct(">8s12s" + "8sQ12s" * _SLOTS)
_CHECK = 8
_ENTRY = re.compile("[0-9a-f]{24}")
_TEMPORARY = "tmp-"


class VariantError(Exception):
    """The bytes on disk are no longer those that were stored."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Encoded bytes that lie in `file` from `offset` on. `digest` is theirs, in hex, not that of the content."""

    coding: bytes
    digest: str
    offset: int
    length: int
    file: Path

    def read(self) -> bytes:
        """The encoded bytes. Raises VariantError when damaged, OSError when unreadable or pruned."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            body = file.read(self.length)
        self._require(_hash(body))
        return body

    def verify(self) -> None:
        """Raises what `read` raises, but holds no more than a piece in memory: for what is sent from the file."""
        found = hashlib.blake2b(digest_size=12)
        left = self.length
        with self.file.open("rb") as file:
            file.seek(self.offset)
            while left and (piece := file.read(min(left, 1 << 18))):
                found.update(piece)
                left -= len(piece)
        self._require(found.hexdigest())

    def _require(self, digest: str) -> None:
        # Deleted, because looking up an entry reads the head only: else no start would ever mend the bodies.
        if digest != self.digest:
            _remove(self.file)
            raise VariantError(f"{self.file}: the {self.coding.decode()} variant is damaged")


_Answer = tuple[str, tuple[Variant, ...]]


class Cache:
    """The folder of variants. Several processes may use one folder at once.

    `fault` says after `variants` why some could not be stored (and so are not there), or is None.
    """

    def __init__(self, folder: Path) -> None:
        self.fault: str | None = None
        self._folder = folder
        self._cancelled = False

    def variants(self, files: Mapping[str, Path | bytes], progress: Progress) -> dict[str, tuple[Variant, ...]]:
        """The variants of each content that are worth it, smallest first.

        `files` has each content, or a file of it, by its hash (BLAKE2b, 12 bytes, hex). What the folder lacks is
        compressed now.
        A file that is gone, or whose content is another by now, has none, and nothing of it is stored.
        """
        self.fault = None
        found: dict[str, tuple[Variant, ...]] = {}
        missing: dict[str, Path | bytes] = {}
        for digest, file in files.items():
            entry = self._look_up(digest)
            if entry is None:
                missing[digest] = file
            found[digest] = entry or ()
        order = _largest_first(missing)
        if order and not self._cancelled and self._usable():
            found.update(self._make(order, missing, progress))
        return found

    def cancel(self) -> None:
        """From any thread, and for good: no further file is taken up; a running `variants` answers what it has."""
        self._cancelled = True

    def prune(self, keep: Collection[str]) -> int:
        """Deletes what is kept of contents that are not in `keep`, and what a killed process left half-written.

        Answers how many contents that were. What cannot be deleted stays.
        """
        kept = frozenset(keep)
        count = 0
        for name in self._names():
            if name.startswith(_TEMPORARY):
                _remove(self._folder / name)
            elif _ENTRY.fullmatch(name) and name not in kept:
                count += _remove(self._folder / name)
        return count

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._folder)
        except OSError:
            return []

    def _look_up(self, digest: str) -> tuple[Variant, ...] | None:
        """What is stored of this content; None when there is no entry, or one that is no use."""
        file = self._folder / digest
        try:
            with open(file, "rb", buffering=0) as entry:
                head = entry.read(_HEAD.size + _CHECK)
                size = entry.seek(0, os.SEEK_END)
        except OSError:
            return None
        return _parse(head, size, digest, file)

    def _usable(self) -> bool:
        """Whether the folder can be written to: found out before the work, not after it."""
        try:
            # `mode` is for the last folder alone; the one above holds everything that visitors send.
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with _temporary(self._folder):
                return True
        except OSError as error:
            self._fail(error)
            return False

    def _fail(self, error: OSError) -> None:
        self.fault = f"{self._folder}: {error.strerror or error}"

    def _make(
        self, order: list[str], files: Mapping[str, Path | bytes], progress: Progress
    ) -> dict[str, tuple[Variant, ...]]:
        finished: queue.SimpleQueue[Future[_Answer]] = queue.SimpleQueue()
        pool = ThreadPoolExecutor(_threads(), thread_name_prefix="variants")
        try:
            with progress(len(order)) as report:
                for digest in order:
                    pool.submit(self._compressed, digest, files[digest]).add_done_callback(finished.put)
                return self._collect(len(order), finished, report)
        except KeyboardInterrupt:
            self.cancel()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _collect(
        self, total: int, finished: queue.SimpleQueue[Future[_Answer]], report: Report
    ) -> dict[str, tuple[Variant, ...]]:
        """Waits for the threads until all is done, it is cancelled, or the folder takes no more."""
        made: dict[str, tuple[Variant, ...]] = {}
        while len(made) < total and not self._cancelled:
            try:
                digest, made_now = finished.get(timeout=0.5).result()
                made[digest] = made_now
            except queue.Empty:
                pass
            except OSError as error:
                self._fail(error)
                break
            report(len(made))
        return made

    def _compressed(self, digest: str, file: Path | bytes) -> _Answer:
        """What a thread does for one file. Raises OSError when the result cannot be stored."""
        entry = self._look_up(digest)  # again: another process may have been here since
        if entry is not None:
            return digest, entry
        content = _content(file, digest)
        if content is None:
            return digest, ()
        bodies = {}
        for coding, compress in _COMPRESSORS.items():
            if self._cancelled:
                return digest, ()
            body = compress(content)
            if len(content) - len(body) >= max(LEAST_SAVED, LEAST_SHARE * len(content)):
                bodies[coding] = body
        return digest, self._store(digest, dict(sorted(bodies.items(), key=lambda item: (len(item[1]), item[0]))))

    def _store(self, digest: str, bodies: Mapping[bytes, bytes]) -> tuple[Variant, ...]:
        """Writes the entry, no variants included. Not synced: a torn entry is told by its head and hashes."""
        file = self._folder / digest
        head = _head(digest, bodies)
        for attempt in range(3):
            try:
                with _temporary(self._folder) as (entry, name):
                    entry.writelines([head, *bodies.values()])
                    entry.close()
                    os.replace(name, file)
                break
            except FileNotFoundError:  # another process that prunes took it for a leftover
                if attempt == 2:
                    raise
        return _parse(head, len(head) + sum(map(len, bodies.values())), digest, file) or ()


def _head(digest: str, bodies: Mapping[bytes, bytes]) -> bytes:
    fields: list[bytes | int] = []
    for coding, body in bodies.items():
        fields += [coding, len(body), bytes.fromhex(_hash(body))]
    fields += [b"", 0, b""] * (_SLOTS - len(bodies))
    head = _HEAD.pack(_MAGIC, bytes.fromhex(digest), *fields)
    return head + hashlib.blake2b(head, digest_size=_CHECK).digest()


def _parse(head: bytes, size: int, digest: str, file: Path) -> tuple[Variant, ...] | None:
    """What the head of an entry of `size` bytes says; None unless all of it is as it was written."""
    packed, check = head[: _HEAD.size], head[_HEAD.size :]
    if check != hashlib.blake2b(packed, digest_size=_CHECK).digest():
        return None
    magic, content, *fields = _HEAD.unpack(packed)
    if magic != _MAGIC or content.hex() != digest:
        return None
    variants = []
    offset = len(head)
    for at in range(0, len(fields), 3):
        if coding := fields[at].rstrip(b"\0"):
            variants.append(Variant(coding, fields[at + 2].hex(), offset, fields[at + 1], file))
            offset += fields[at + 1]
    return tuple(variants) if offset == size else None


@contextmanager
def _temporary(folder: Path) -> Iterator[tuple[BinaryIO, str]]:
    """A new file, open to write, that is gone afterwards unless it was renamed."""
    handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
    try:
        # Not NamedTemporaryFile, which takes it for an error that the name is gone when it closes.
        with open(handle, "wb") as file:
            yield file, name
    finally:
        _remove(Path(name))


def _remove(file: Path) -> bool:
    try:
        os.unlink(file)
    except OSError:
        return False
    return True


def _content(file: Path | bytes, digest: str) -> bytes | None:
    """The bytes of `file`, if they are still those of `digest`."""
    if isinstance(file, bytes):
        return file
    try:
        with file.open("rb") as opened:
            content = opened.read(TOO_LARGE + 1)
    except OSError:
        return None
    return content if len(content) <= TOO_LARGE and _hash(content) == digest else None


def _largest_first(files: Mapping[str, Path | bytes]) -> list[str]:
    """The contents to compress, so that no large file is the last one that all threads but one wait for.

    By powers of two, at random within each: two processes that start on an empty folder then meet other files, and
    find ready what the other did.
    """
    keys: dict[str, tuple[int, float]] = {}
    for digest, file in files.items():
        try:
            size = len(file) if isinstance(file, bytes) else file.stat().st_size
        except OSError:
            continue
        if size <= TOO_LARGE:
            keys[digest] = (-size.bit_length(), random.random())
    return sorted(keys, key=keys.__getitem__)


def _threads() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _THREADS)


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def _brotli(content: bytes) -> bytes:
    # A window of 4 MiB, brotli's own default: more would cost each visitor's browser that memory.
    quality = 9 if len(content) > LARGE else 11
    body: bytes = brotli.compress(content, mode=brotli.MODE_TEXT, quality=quality, lgwin=22)
    return body


def _zstd(content: bytes) -> bytes:
    # RFC 9659: with a window above 8 MiB, browsers refuse the answer.
    level = 12 if len(content) > LARGE else 19
    window = min(23, max(10, (len(content) - 1).bit_length()))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(content), window_log=window, write_content_size=True
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(content)


def _gzip(content: bytes) -> bytes:
    # zlib and not gzip: its header has neither time nor name, so that the same content gives the same bytes.
    return zlib.compress(content, level=6 if len(content) > LARGE else 9, wbits=31)


_COMPRESSORS: Mapping[bytes, Callable[[bytes], bytes]] = {b"br": _brotli, b"zstd": _zstd, b"gzip": _gzip}
