"""What is kept in memory, what is sent from the disk, and files that change while they are served."""

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from server.hosting import Cache, Shelf, SnapshotError
from server.hosting.resource import Part
from server.hosting.shelf import read
from tests.conftest import unprivileged
from tests.hosting.conftest import Both, Client, Served, alike, bikes, both, read_reply, request, serving, write
from tests.hosting.test_semantics import CONDITIONS, DECODERS, MODIFIED, dated, filled

BIG = random.Random(5).randbytes(3_000_000)
TEXT = b"".join(b"line %d of a text that is worth it\n" % n for n in range(3_000))
FILES: dict[str, str | bytes] = {
    "index.html": "Home",
    "big.png": BIG,
    "digits.png": b"0123456789",
    "text.txt": TEXT,
    "empty.txt": "",
    "404.html": '<a href="x">x</a>' + "Nothing here. " * 100,
    "_redirects": "/app/* /index.html 200",
}
NO_ROOM = 0
LONG = 32 << 20

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("shelf")
    return dated(write(found / "public", FILES), MODIFIED).parent


@pytest.fixture(scope="module")
def memory(folder: Path) -> Iterator[Both]:
    with both(bikes(folder, {}, cache=folder / "cache")) as pair:
        yield pair


@pytest.fixture(scope="module")
def disk(folder: Path, memory: Both) -> Iterator[Both]:
    with both(bikes(folder, {}, cache=folder / "cache", budget=NO_ROOM)) as pair:
        yield pair


# -- from the disk -------------------------------------------------------------------------------------------------

ASKED: list[tuple[str, dict[str, str | list[str]]]] = [
    ("/bikes/big.png", {}),
    ("/bikes/big.png", {"method": "HEAD"}),
    ("/bikes/big.png", {"range": "bytes=0-0"}),
    ("/bikes/big.png", {"range": "bytes=1000000-1999999"}),
    ("/bikes/big.png", {"range": "bytes=-1"}),
    ("/bikes/big.png", {"range": "bytes=5-9,262140-262150,2999999-"}),
    ("/bikes/big.png", {"range": "bytes=0-,-5"}),
    ("/bikes/big.png", {"range": "bytes=3000000-"}),
    ("/bikes/big.png", {"if_none_match": "*"}),
    ("/bikes/big.png", {"if_match": '"x"'}),
    ("/bikes/big.png", {"method": "POST"}),
    ("/bikes/text.txt", {}),
    ("/bikes/text.txt", {"accept_encoding": "br"}),
    ("/bikes/text.txt", {"accept_encoding": "gzip"}),
    ("/bikes/text.txt", {"accept_encoding": "zstd"}),
    ("/bikes/text.txt", {"accept_encoding": "br", "method": "HEAD"}),
    ("/bikes/text.txt", {"accept_encoding": "br", "range": "bytes=7-1000"}),
    ("/bikes/empty.txt", {}),
    ("/bikes/empty.txt", {"range": "bytes=0-"}),
    ("/bikes/", {}),
    ("/bikes/index.html", {}),
    ("/bikes/app/x", {}),
    ("/bikes/none", {}),
    ("/bikes/none", {"accept_encoding": "gzip"}),
]


@pytest.mark.parametrize(("target", "options"), ASKED)
def test_disk_answers_as_memory_does(memory: Both, disk: Both, target: str, options: dict[str, str]) -> None:
    assert alike(disk.ask(target, **options)) == alike(memory.ask(target, **options))


@pytest.mark.parametrize(("conditions", "status"), CONDITIONS)
def test_conditions_count_for_the_disk_too(disk: Both, conditions: dict[str, str | list[str]], status: int) -> None:
    etag = disk.ask("/bikes/digits.png")["etag"]
    assert disk.ask("/bikes/digits.png", **filled(conditions, etag)).status == status


def test_whole_file_comes_from_the_disk(disk: Both) -> None:
    assert disk.ask("/bikes/big.png").body == BIG
    assert disk.ask("/bikes/big.png", range="bytes=262143-262145").body == BIG[262143:262146]


@pytest.mark.parametrize("coding", ["br", "gzip", "zstd"])
def test_variant_comes_from_the_disk(disk: Both, coding: str) -> None:
    reply = disk.ask("/bikes/text.txt", accept_encoding=coding)
    assert reply["content-encoding"] == coding
    assert DECODERS[coding](reply.body) == TEXT
    assert disk.ask("/bikes/text.txt", accept_encoding=coding, if_none_match=reply["etag"]).status == 304


def test_answers_from_disk_and_memory_on_one_connection(disk: Both) -> None:
    """Order holds where some answers are the lane's and some are not."""
    for first, second in (("/bikes/app/x", "/bikes/text.txt"), ("/bikes/big.png", "/bikes/app/x")):
        apart = [disk.ask(target).body for target in (first, second, first)]
        for port in disk.ports.values():
            assert disk.run(_bodies(port, [first, second, first])) == apart


async def _bodies(port: int, targets: list[str]) -> list[bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.writelines([request(target) for target in targets])
    bodies = [(await read_reply(reader)).body for _ in targets]
    writer.close()
    return bodies


# -- the budget ----------------------------------------------------------------------------------------------------


def sizes(folder: Path, **named: int) -> dict[Path, bool]:
    """Files of so many bytes, none like another."""
    files = write(folder, {name: os.urandom(size) for name, size in named.items()})
    return {files / name: False for name in named}


def in_memory(shelf: Shelf, files: dict[Path, bool]) -> set[str]:
    contents = shelf.take(files)
    return {path.name for path in files if isinstance(contents[path].identity.body, bytes)}


def test_smallest_are_kept_and_the_budget_holds(tmp_path: Path) -> None:
    shelf = Shelf(None, 100)
    assert in_memory(shelf, sizes(tmp_path, large=60, middle=50, small=30)) == {"small", "middle"}
    assert shelf.held == 80


def test_file_that_just_fits(tmp_path: Path) -> None:
    shelf = Shelf(None, 100)
    assert in_memory(shelf, sizes(tmp_path, a=40, b=60)) == {"a", "b"}
    assert shelf.held == 100


def test_no_room_at_all(tmp_path: Path) -> None:
    shelf = Shelf(None, 0)
    contents = shelf.take(sizes(tmp_path, a=1, b=2))
    assert [read(content.identity.body) for content in contents.values()] == [path.read_bytes() for path in contents]
    assert shelf.held == 0


def test_same_content_twice_is_counted_once(tmp_path: Path) -> None:
    files = {f"{n}.txt": b"the same" * 10 for n in range(5)}
    published = bikes(tmp_path, dict(files), budget=80)
    assert published.held == 80
    with both(published) as host:
        assert {host.ask(f"/bikes/{name}").body for name in files} == {b"the same" * 10}


def test_variants_count_too(tmp_path: Path) -> None:
    alone = bikes(tmp_path, {"text.txt": TEXT})
    with_variants = bikes(tmp_path, {}, cache=tmp_path / "cache")
    assert alone.held == len(TEXT) < with_variants.held
    with both(with_variants) as host:
        packed = [len(host.ask("/bikes/text.txt", accept_encoding=name).body) for name in ("br", "gzip", "zstd")]
    assert with_variants.held == len(TEXT) + sum(packed)


@pytest.mark.parametrize("budget", [0, len(TEXT) - 1, len(TEXT), len(TEXT) + 10_000, 10 * len(TEXT)])
def test_budget_is_never_passed(tmp_path: Path, budget: int) -> None:
    published = bikes(tmp_path, {"text.txt": TEXT, "same.txt": TEXT}, cache=tmp_path / "cache", budget=budget)
    assert published.held <= budget


def test_shelf_that_is_used_again_knows_what_it_has(tmp_path: Path) -> None:
    shelf = Shelf(None, 1000)
    files = sizes(tmp_path, a=10)
    shelf.take(files)
    shelf.take(files)
    assert shelf.held == 10


def test_damaged_variant_is_left_out_and_made_again(tmp_path: Path) -> None:
    bikes(tmp_path, {"text.txt": TEXT}, cache=tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    data = bytearray(entry.read_bytes())
    data[-1] ^= 1
    for budget in (2**28, 0):
        entry.write_bytes(data)
        with both(bikes(tmp_path, {}, cache=tmp_path / "cache", budget=budget)) as host:
            for coding in ("br", "gzip", "zstd"):
                reply = host.ask("/bikes/text.txt", accept_encoding=coding)
                assert DECODERS["" if "content-encoding" not in reply else coding](reply.body) == TEXT
        with both(bikes(tmp_path, {}, cache=tmp_path / "cache", budget=budget)) as host:
            for coding in ("br", "gzip", "zstd"):
                assert host.ask("/bikes/text.txt", accept_encoding=coding)["content-encoding"] == coding


def test_cache_may_be_pruned_of_what_is_not_published(tmp_path: Path) -> None:
    bikes(tmp_path, {"text.txt": TEXT}, cache=tmp_path / "cache")
    published = bikes(tmp_path, {"text.txt": TEXT + b"more"}, cache=tmp_path / "cache", budget=NO_ROOM)
    assert Cache(tmp_path / "cache").prune(published.contents.keys()) == 1
    with both(published) as host:
        assert DECODERS["br"](host.ask("/bikes/text.txt", accept_encoding="br").body) == TEXT + b"more"


def test_cache_that_cannot_be_written_leaves_files_as_they_are() -> None:
    with unprivileged() as root:
        (root / "locked").mkdir(mode=0o500)
        cache = Cache(root / "locked" / "cache")
        text = write(root, {"text.txt": TEXT}) / "text.txt"
        content = Shelf(cache, 2**28).take({text: True})[text]
        assert (content.variants, content.identity.body) == ((), TEXT)
        assert cache.fault is not None and "Permission denied" in cache.fault


# -- files that change ---------------------------------------------------------------------------------------------


def replaced(file: Path) -> None:
    """By another of the same size, as deployments do it."""
    other = file.with_name("other")
    other.write_bytes(b"N" * file.stat().st_size)
    os.replace(other, file)


def overwritten(file: Path) -> None:
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.write(b"N" * size)


def grown(file: Path) -> None:
    with file.open("ab") as opened:
        opened.write(b"N")


def shortened(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def linked(file: Path) -> None:
    secret = file.parent.parent / "secret"
    secret.write_bytes(b"N" * file.stat().st_size)
    file.unlink()
    file.symlink_to(secret)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("change", [Path.unlink, replaced, overwritten, grown, shortened, linked, a_folder])
def test_file_that_is_another_by_now_is_not_sent(tmp_path: Path, change: Change) -> None:
    with both(bikes(tmp_path, {"a.png": b"O" * 5000, "b.png": b"b"}, budget=NO_ROOM)) as host:
        assert host.ask("/bikes/a.png").body == b"O" * 5000
        change(tmp_path / "public" / "a.png")
        for options in ({}, {"range": "bytes=1-2"}, {"range": "bytes=1-2,9-10"}):
            reply = host.ask("/bikes/a.png", **options)
            assert (reply.status, reply["cache-control"], reply["retry-after"]) == (503, "no-store", "30")
            assert b"N" * 5 not in reply.body and "etag" not in reply
        assert host.ask("/bikes/b.png").body == b"b"


def test_file_that_is_published_anew_is_sent_again(tmp_path: Path) -> None:
    with both(bikes(tmp_path, {"a.png": b"O" * 5000}, budget=NO_ROOM)) as host:
        replaced(tmp_path / "public" / "a.png")
        assert host.ask("/bikes/a.png").status == 503
        host.served.published = bikes(tmp_path, {}, budget=NO_ROOM)
        assert host.ask("/bikes/a.png").body == b"N" * 5000


def test_file_in_memory_may_change(tmp_path: Path) -> None:
    with both(bikes(tmp_path, {"a.png": b"O" * 5000})) as host:
        (tmp_path / "public" / "a.png").unlink()
        assert host.ask("/bikes/a.png").body == b"O" * 5000


def test_variant_that_is_gone_is_not_sent(tmp_path: Path) -> None:
    with both(bikes(tmp_path, {"text.txt": TEXT}, cache=tmp_path / "cache", budget=NO_ROOM)) as host:
        for entry in (tmp_path / "cache").iterdir():
            entry.unlink()
        assert host.ask("/bikes/text.txt", accept_encoding="br").status in (200, 503)
        assert host.ask("/bikes/text.txt").body == TEXT


@pytest.mark.parametrize("change", [overwritten, shortened])
async def test_file_that_changes_while_it_is_sent_is_cut_off(tmp_path: Path, way: str, change: Change) -> None:
    got = await _while_it_is_sent(tmp_path, way, change)
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(body) < LONG and body == b"O" * len(body)


@pytest.mark.parametrize("change", [replaced, Path.unlink])
async def test_file_that_is_replaced_while_it_is_sent_comes_whole_or_is_cut_off(
    tmp_path: Path, way: str, change: Change
) -> None:
    _, _, body = (await _while_it_is_sent(tmp_path, way, change)).partition(b"\r\n\r\n")
    assert body == b"O" * len(body)


async def _while_it_is_sent(folder: Path, way: str, change: Change) -> bytes:
    """All that a slow client gets of a long file, which changes when it has the first bytes."""
    published = bikes(folder, {"a.png": b"O" * LONG}, budget=NO_ROOM)
    async with serving(Served(published), way) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
        writer.write(request("/bikes/a.png", connection="close"))
        got = await reader.readexactly(1000)
        await asyncio.sleep(0.1)
        change(folder / "public" / "a.png")
        with suppress(ConnectionResetError):
            while piece := await reader.read(2**20):
                got += piece
        writer.close()
        # The server is well.
        assert (await Client(port).get("/bikes/none")).status == 404
    return got


# -- what cannot be read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [2**28, 0])
def test_locked_file_is_refused_by_name(budget: int) -> None:
    with unprivileged() as root:
        write(root / "public", {"index.html": "x", "a.css": "a", "b.css": "b"})
        (root / "public" / "a.css").chmod(0)
        with pytest.raises(SnapshotError) as caught:
            bikes(root, {}, budget=budget)
        assert caught.value.problems == [f"{root / 'public' / 'a.css'}: cannot be read: Permission denied"]


def test_files_gone_meanwhile_are_all_named(tmp_path: Path) -> None:
    gone = [tmp_path / "a.css", tmp_path / "b.css"]
    with pytest.raises(SnapshotError) as caught:
        Shelf(None, 0).take(dict.fromkeys(gone, False))
    assert caught.value.problems == [f"{file}: cannot be read: No such file or directory" for file in gone]


def test_part_of_a_part() -> None:
    part = Part("x", 100, 50, (1, 2, 3))
    assert part.slice(10, 20) == Part("x", 110, 10, (1, 2, 3))
