import gzip
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import brotli
import pytest
import zstandard

from server.hosting import variants
from server.hosting.variants import Cache, Variant, VariantError
from server.progress import Report, silent
from tests.conftest import REPOSITORY, unprivileged

PAGE = "".join(f"<p>Paragraph {n} of the pages about pets, number {n * n}.</p>\n" for n in range(200)).encode()
DECODE: dict[bytes, Callable[[bytes], bytes]] = {
    b"br": brotli.decompress,
    b"zstd": zstandard.ZstdDecompressor().decompress,
    b"gzip": gzip.decompress,
}


def digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def files(folder: Path, *contents: bytes) -> dict[str, Path]:
    """A file for each of the contents, as `variants` takes them."""
    made = {}
    folder.mkdir(parents=True, exist_ok=True)
    for content in contents:
        made[digest(content)] = folder / f"{digest(content)}.txt"
        made[digest(content)].write_bytes(content)
    return made


def pages(count: int) -> list[bytes]:
    return [PAGE + str(number).encode() for number in range(count)]


def made(tmp_path: Path, content: bytes) -> tuple[Variant, ...]:
    """The variants of one content, in a cache of its own."""
    return Cache(tmp_path / "cache").variants(files(tmp_path / "public", content), silent)[digest(content)]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Fails if an entry is written meanwhile: warm is to mean that nothing is compressed."""

    def state() -> list[tuple[str, int, int]]:
        return sorted((entry.name, entry.stat().st_ino, entry.stat().st_mtime_ns) for entry in folder.iterdir())

    before = state()
    yield
    assert state() == before


# -- what is made --------------------------------------------------------------------------------------------------


def test_every_variant_decodes_to_the_original(tmp_path: Path) -> None:
    found = made(tmp_path, PAGE)
    assert {variant.coding for variant in found} == {b"br", b"zstd", b"gzip"}
    for variant in found:
        assert DECODE[variant.coding](variant.read()) == PAGE
        assert (len(variant.read()), digest(variant.read())) == (variant.length, variant.digest)
        variant.verify()


def test_smallest_comes_first(tmp_path: Path) -> None:
    lengths = [variant.length for variant in made(tmp_path, PAGE)]
    assert lengths == sorted(lengths)
    assert lengths[-1] < len(PAGE) / 2


def test_large_file_has_variants_that_browsers_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = random.Random(1).randbytes(1 << 20).hex().encode() * 5
    monkeypatch.setattr(variants, "TOO_LARGE", len(content))
    found = {variant.coding: variant for variant in made(tmp_path, content)}
    assert {coding for coding, variant in found.items() if DECODE[coding](variant.read()) == content} == set(DECODE)
    frame = zstandard.get_frame_parameters(found[b"zstd"].read())
    assert (frame.window_size, frame.content_size) == (8 << 20, len(content))
    found[b"gzip"].verify()


def test_small_zstd_frame_says_its_size(tmp_path: Path) -> None:
    (zstd,) = (variant for variant in made(tmp_path, PAGE) if variant.coding == b"zstd")
    frame = zstandard.get_frame_parameters(zstd.read())
    assert frame.content_size == len(PAGE)
    assert frame.window_size <= 8 << 20


def test_gzip_has_neither_time_nor_name(tmp_path: Path) -> None:
    (zipped,) = (variant for variant in made(tmp_path, PAGE) if variant.coding == b"gzip")
    assert zipped.read()[3:8] == bytes(5)


def test_two_folders_get_the_same_bytes(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one", PAGE), made(tmp_path / "other", PAGE)
    assert [(v.coding, v.digest, v.offset, v.read()) for v in one] == [
        (v.coding, v.digest, v.offset, v.read()) for v in other
    ]


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"a" * 90, random.Random(1).randbytes(50_000), random.Random(1).randbytes(98_000) + bytes(2_000)],
    ids=["empty", "one byte", "tiny", "random", "hardly smaller"],
)
def test_not_worth_it_is_remembered(tmp_path: Path, content: bytes) -> None:
    assert made(tmp_path, content) == ()
    assert names(tmp_path / "cache") == [digest(content)]
    with untouched(tmp_path / "cache"):
        assert made(tmp_path, content) == ()


def test_too_large_has_none_and_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "TOO_LARGE", len(PAGE) - 1)
    assert made(tmp_path, PAGE) == ()
    assert not (tmp_path / "cache").exists()


def test_no_files_make_no_folder(tmp_path: Path) -> None:
    assert Cache(tmp_path / "cache").variants({}, silent) == {}
    assert not (tmp_path / "cache").exists()


def test_folder_and_entries_are_for_the_owner_only(tmp_path: Path) -> None:
    made(tmp_path, PAGE)
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "cache" / digest(PAGE)).stat().st_mode & 0o777 == 0o600


# -- what is found again -------------------------------------------------------------------------------------------


def test_second_start_compresses_nothing(tmp_path: Path) -> None:
    given = files(tmp_path / "public", *pages(20), b"x")
    before = Cache(tmp_path / "cache").variants(given, silent)
    for file in given.values():
        file.unlink()  # nor does it read the files
    with untouched(tmp_path / "cache"):
        assert Cache(tmp_path / "cache").variants(given, silent) == before


def test_only_what_is_missing_is_compressed_and_reported(tmp_path: Path) -> None:
    totals: list[int] = []
    reports: list[int] = []

    @contextmanager
    def progress(total: int) -> Iterator[Report]:
        totals.append(total)
        yield reports.append

    cache = Cache(tmp_path / "cache")
    cache.variants(files(tmp_path / "public", *pages(3)), progress)
    cache.variants(files(tmp_path / "public", *pages(5)), progress)
    cache.variants(files(tmp_path / "public", *pages(5)), progress)
    assert totals == [3, 2]
    assert (reports[-1], max(reports)) == (2, 3)


def cut_head(entry: bytes) -> bytes:
    return entry[:50]


def cut_bodies(entry: bytes) -> bytes:
    return entry[:-1]


def lengthened(entry: bytes) -> bytes:
    return entry + b"x"


def flipped_length(entry: bytes) -> bytes:
    return entry[:35] + bytes([entry[35] ^ 1]) + entry[36:]


def other_version(entry: bytes) -> bytes:
    head = bytes([*entry[:7], entry[7] + 1]) + entry[8:104]
    return head + hashlib.blake2b(head, digest_size=8).digest() + entry[112:]


def emptied(entry: bytes) -> bytes:
    return b""


def zeroed(entry: bytes) -> bytes:
    return bytes(len(entry))


@pytest.mark.parametrize(
    "damage",
    [cut_head, cut_bodies, lengthened, flipped_length, other_version, emptied, zeroed],
    ids=lambda f: f.__name__,
)
def test_damaged_entry_is_made_again(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    before = made(tmp_path, PAGE)
    entry = tmp_path / "cache" / digest(PAGE)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert made(tmp_path, PAGE) == before
    assert entry.read_bytes() == whole


def test_entry_under_the_name_of_another_is_made_again(tmp_path: Path) -> None:
    made(tmp_path, PAGE)
    (tmp_path / "cache" / digest(PAGE)).rename(tmp_path / "cache" / digest(b"x"))
    assert made(tmp_path, b"x") == ()


@pytest.mark.parametrize("check", [Variant.read, Variant.verify])
def test_damaged_body_is_told_and_mended_by_the_next_start(
    tmp_path: Path, check: Callable[[Variant], bytes | None]
) -> None:
    variant = made(tmp_path, PAGE)[0]
    body = bytearray(variant.file.read_bytes())
    body[variant.offset + 10] ^= 1
    variant.file.write_bytes(body)
    (damaged, *_) = made(tmp_path, PAGE)  # the head is as it was
    with pytest.raises(VariantError, match=r"the (br|zstd) variant is damaged"):
        check(damaged)
    (mended, *_) = made(tmp_path, PAGE)
    assert DECODE[mended.coding](mended.read()) == PAGE


@pytest.mark.parametrize("check", [Variant.read, Variant.verify])
def test_entry_cut_off_later_is_told(tmp_path: Path, check: Callable[[Variant], bytes | None]) -> None:
    variant = made(tmp_path, PAGE)[-1]
    os.truncate(variant.file, variant.offset + 5)
    with pytest.raises(VariantError):
        check(variant)


def test_entry_gone_later_is_told(tmp_path: Path) -> None:
    variant = made(tmp_path, PAGE)[0]
    variant.file.unlink()
    with pytest.raises(FileNotFoundError):
        variant.read()


# -- what goes wrong -----------------------------------------------------------------------------------------------


def test_content_changed_meanwhile_is_not_stored(tmp_path: Path) -> None:
    given = files(tmp_path / "public", *pages(2))
    changed, same = given
    given[changed].write_bytes(PAGE + b"another")
    cache = Cache(tmp_path / "cache")
    found = cache.variants(given, silent)
    assert (found[changed], len(found[same])) == ((), 3)
    assert (names(tmp_path / "cache"), cache.fault) == ([same], None)


def test_file_gone_meanwhile_has_none(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.variants({digest(PAGE): tmp_path / "gone"}, silent) == {digest(PAGE): ()}
    assert cache.fault is None


def test_unwritable_folder_gives_none_and_says_so() -> None:
    with unprivileged() as root:
        given = files(root / "public", PAGE)
        (root / "cache").mkdir(mode=0o500)
        cache = Cache(root / "cache")
        assert cache.variants(given, silent) == {digest(PAGE): ()}
        assert cache.fault == f"{root / 'cache'}: Permission denied"


def test_folder_that_cannot_be_made_gives_none_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    cache = Cache(tmp_path / "var" / "cache")
    assert cache.variants(files(tmp_path, PAGE), silent) == {digest(PAGE): ()}
    assert cache.fault is not None and str(tmp_path / "var" / "cache") in cache.fault


def test_warm_entries_are_read_from_a_folder_that_became_unwritable() -> None:
    with unprivileged() as root:
        given = files(root / "public", PAGE)
        before = Cache(root / "cache").variants(given, silent)
        (root / "cache").chmod(0o500)
        cache = Cache(root / "cache")
        assert (cache.variants(given, silent), cache.fault) == (before, None)
        assert cache.prune([]) == 0
        (root / "cache").chmod(0o700)


def test_full_disk_gives_none_leaves_nothing_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    given = files(tmp_path / "public", *pages(30))
    cache = Cache(tmp_path / "cache")
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        assert set(cache.variants(given, silent).values()) == {()}
    assert cache.fault == f"{tmp_path / 'cache'}: No space left on device"
    assert names(tmp_path / "cache") == []
    assert all(cache.variants(given, silent).values())
    assert cache.fault is None


def test_entry_whose_place_a_folder_takes(tmp_path: Path) -> None:
    (tmp_path / "cache" / digest(PAGE)).mkdir(parents=True)
    cache = Cache(tmp_path / "cache")
    assert cache.variants(files(tmp_path / "public", PAGE), silent) == {digest(PAGE): ()}
    assert cache.fault is not None
    assert names(tmp_path / "cache") == [digest(PAGE)]


def test_another_process_pruned_the_file_that_was_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, times = os.replace, []

    def pruned_once(source: str, target: Path) -> None:
        times.append(source)
        if len(times) == 1:
            assert Cache(tmp_path / "cache").prune([]) == 0
        rename(source, target)

    monkeypatch.setattr(os, "replace", pruned_once)
    cache = Cache(tmp_path / "cache")
    assert len(cache.variants(files(tmp_path / "public", PAGE), silent)[digest(PAGE)]) == 3
    assert (len(times), cache.fault, names(tmp_path / "cache")) == (2, None, [digest(PAGE)])


# -- several at once, and broken off -------------------------------------------------------------------------------


def test_two_caches_in_one_folder(tmp_path: Path) -> None:
    given = files(tmp_path / "public", *pages(60))
    caches = [Cache(tmp_path / "cache") for _ in range(2)]
    found: list[dict[str, tuple[Variant, ...]]] = []
    threads = [threading.Thread(target=lambda c=cache: found.append(c.variants(given, silent))) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [cache.fault for cache in caches] == [None, None]
    assert found[0] == found[1]
    assert names(tmp_path / "cache") == sorted(given)
    for variant in (variant for several in found[0].values() for variant in several):
        variant.verify()


def test_cancelled_stops_soon_and_goes_on_at_the_next_start(tmp_path: Path) -> None:
    given = files(tmp_path / "public", *pages(100))
    cache = Cache(tmp_path / "cache")

    @contextmanager
    def progress(total: int) -> Iterator[Report]:
        yield lambda done: cache.cancel()

    found = cache.variants(given, progress)
    assert set(found) == set(given)
    assert 1 <= sum(map(bool, found.values())) < 50
    assert sum(map(bool, cache.variants(given, silent).values())) < 50
    assert all(Cache(tmp_path / "cache").variants(given, silent).values())


def test_interrupted_leaves_whole_entries_only(tmp_path: Path) -> None:
    given = files(tmp_path / "public", *pages(300))

    @contextmanager
    def progress(total: int) -> Iterator[Report]:
        def report(done: int) -> None:
            raise KeyboardInterrupt

        yield report

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path / "cache").variants(given, progress)
    assert 1 <= len(names(tmp_path / "cache")) < 50
    assert set(names(tmp_path / "cache")) <= set(given)


KILLED = """
import os, signal, sys
from pathlib import Path
from server.progress import silent
from server.hosting.variants import Cache
os.replace = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
Cache(Path(sys.argv[1])).variants({sys.argv[2]: Path(sys.argv[3])}, silent)
"""


def test_killed_before_the_rename_leaves_what_prune_removes(tmp_path: Path) -> None:
    given = files(tmp_path / "public", PAGE)
    arguments = [str(tmp_path / "cache"), digest(PAGE), str(given[digest(PAGE)])]
    ran = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=REPOSITORY)
    assert ran.returncode == -signal.SIGKILL
    (leftover,) = names(tmp_path / "cache")
    assert leftover.startswith("tmp-")
    cache = Cache(tmp_path / "cache")
    assert len(cache.variants(given, silent)[digest(PAGE)]) == 3
    assert cache.prune(given) == 0
    assert names(tmp_path / "cache") == [digest(PAGE)]


# -- prune ---------------------------------------------------------------------------------------------------------


def test_prune_deletes_what_nobody_has_any_more(tmp_path: Path) -> None:
    given = files(tmp_path / "public", *pages(5))
    cache = Cache(tmp_path / "cache")
    cache.variants(given, silent)
    keep = list(given)[:2]
    assert cache.prune(keep) == 3
    assert names(tmp_path / "cache") == sorted(keep)
    assert cache.prune(keep) == 0


def test_prune_leaves_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "cache" / ("a" * 24)).mkdir(parents=True)
    for name in ("README", "b" * 23, "c" * 25, "G" * 24):
        (tmp_path / "cache" / name).write_text("x")
    assert Cache(tmp_path / "cache").prune([]) == 0
    assert len(names(tmp_path / "cache")) == 5


def test_prune_before_there_is_a_folder(tmp_path: Path) -> None:
    assert Cache(tmp_path / "cache").prune([]) == 0
    assert not (tmp_path / "cache").exists()


def test_many_warm_entries_load_at_once(tmp_path: Path) -> None:
    made(tmp_path, PAGE)
    whole = (tmp_path / "cache" / digest(PAGE)).read_bytes()
    given = {digest(str(number).encode()): tmp_path / "gone" for number in range(2000)}
    for name in given:
        head = whole[:8] + bytes.fromhex(name) + whole[20:104]
        check = hashlib.blake2b(head, digest_size=8).digest()
        (tmp_path / "cache" / name).write_bytes(head + check + whole[112:])
    started = time.monotonic()
    assert all(map(len, Cache(tmp_path / "cache").variants(given, silent).values()))
    assert time.monotonic() - started < 1  # about 0.05 here
