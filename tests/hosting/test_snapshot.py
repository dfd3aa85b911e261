"""The table that a folder becomes: which targets are in it, and what each is."""

import unicodedata
from pathlib import Path

import pytest

from server import hosting
from server.hosting import SnapshotError
from server.hosting.media_types import guess
from server.hosting.resource import Entry, Moved, Resource
from server.hosting.shelf import read
from tests.hosting.conftest import Files, bikes, publish, write

FIELDS = {b"host": b"localhost"}


def table(folder: Path, *names: str) -> set[str]:
    """The targets below /bikes of a site with these files."""
    published = bikes(folder, {name: name for name in names})
    return {target.decode().removeprefix("/bikes") for target in published.default.entries}


def find(folder: Path, target: str, files: Files) -> Entry:
    entry, _ = bikes(folder, files).find(target.encode("latin-1"), FIELDS)
    assert entry is not None
    return entry


def body(entry: Entry) -> bytes:
    """What a file answers with."""
    assert isinstance(entry, Resource)
    return read(entry.identity.body)


@pytest.mark.parametrize(
    ("names", "targets"),
    [
        (["index.html"], {"", "/", "/index.html"}),
        (["a/index.html"], {"", "/a", "/a/", "/a/index.html"}),
        (["a.html"], {"", "/a", "/a.html"}),
        (["a/b.html"], {"", "/a/b", "/a/b.html"}),
        (["a/x.css"], {"", "/a/x.css"}),
        (["a.html", "a/index.html"], {"", "/a", "/a.html", "/a/", "/a/index.html"}),
        (["a", "a.html"], {"", "/a", "/a.html"}),
        (["404.html", "a/404.html"], {""}),
        ([".env", ".git/config", "_headers"], {""}),
        (["é ü.txt"], {"", "/%C3%A9%20%C3%BC.txt"}),
        (["a?b#c%20.txt"], {"", "/a%3Fb%23c%2520.txt"}),
        (["a.HTML"], {"", "/a.HTML"}),
        (["index.htm"], {"", "/index.htm"}),
    ],
)
def test_targets_of_files(tmp_path: Path, names: list[str], targets: set[str]) -> None:
    if "_headers" in names:
        write(tmp_path / "public", {"_headers": "# none"})
        names = [name for name in names if name != "_headers"]
    assert table(tmp_path, *names) == targets


def test_ways_to_the_first_page(tmp_path: Path) -> None:
    files: Files = {"index.html": "x"}
    assert body(find(tmp_path, "/bikes/", files)) == b"x"
    moved = find(tmp_path, "/bikes/index.html", files)
    assert isinstance(moved, Moved) and (moved.status, moved.location) == (308, b"./")
    moved = find(tmp_path, "/bikes", files)
    assert isinstance(moved, Moved) and (moved.status, moved.location) == (308, b"./bikes/")


@pytest.mark.parametrize(
    "asked", ["caf%C3%A9%20au%20lait.txt", "caf%c3%a9%20au lait.txt", "c%61fe%CC%81%20au%20lait.txt"]
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_every_spelling_of_an_encoded_name(tmp_path: Path, asked: str, form: str) -> None:
    name = unicodedata.normalize("NFC" if form == "NFC" else "NFD", "café au lait.txt")
    assert body(find(tmp_path, f"/bikes/{asked}", {name: "x"})) == b"x"


@pytest.mark.parametrize(
    "asked", ["a%2Fx.css", "a%2fx.css", "a\\x.css", "a%5Cx.css", "./a/x.css", "a/../a/x.css", "a//x.css", "A/x.css"]
)
def test_other_ways_to_a_file_are_nowhere(tmp_path: Path, asked: str) -> None:
    assert not isinstance(find(tmp_path, f"/bikes/{asked}", {"a/x.css": "x"}), Resource | Moved)


def test_queries_are_not_looked_at(tmp_path: Path) -> None:
    published = bikes(tmp_path, {"x.txt": "x"})
    for query in (b"", b"a", b"a?b", b"/../", b"%00", b"\xff"):
        entry, found = published.find(b"/bikes/x.txt?" + query, FIELDS)
        assert entry is not None and (body(entry), found) == (b"x", query)


@pytest.mark.parametrize("name", ["a\nb.txt", "a\x01.txt", "a\\b.txt", "a\x7f/b.txt", "a\x85.txt"])
def test_name_that_no_address_can_have_is_refused(tmp_path: Path, name: str) -> None:
    public = write(tmp_path / "public", {"index.html": "x", name: "x"})
    with pytest.raises(SnapshotError) as caught:
        publish(hosting.read("bikes", public))
    assert caught.value.problems == [f"{public / name}: has a name that no address can have"]


def test_etag_is_of_the_content(tmp_path: Path) -> None:
    def etag(text: str) -> bytes:
        entry = find(tmp_path, "/bikes/a.txt", {"a.txt": text})
        assert isinstance(entry, Resource)
        return entry.identity.etag

    before = etag("a.txt")
    assert etag("b.txt") != before  # as long as before
    assert etag("a.txt") == before


@pytest.mark.parametrize("name", ["a.html", "a.css", "a.js", "a.svg", "a.woff2", "a.PNG", "a.nothing", "CNAME"])
def test_media_type_is_of_the_name(tmp_path: Path, name: str) -> None:
    entry = find(tmp_path, f"/bikes/{name.removesuffix('.html')}", {name: "x"})
    assert isinstance(entry, Resource)
    assert entry.headers.content_type.decode() == guess(name)


def test_same_site_has_the_same_pages_on_its_domain(tmp_path: Path) -> None:
    published = bikes(tmp_path, {"index.html": "x", "a/index.html": "a", "b.txt": "b"}, hosts=("bikes.example",))
    own = {target.removeprefix(b"/bikes") for target in published.default.entries} - {b""}
    assert set(published.hosts["bikes.example"].entries) == own


def test_script_is_put_into_every_page(tmp_path: Path) -> None:
    script = "<script src=/live.js></script>"
    files: Files = {"index.html": "<body>x</body>", "a.txt": "<body>x</body>", "404.html": "y"}
    published = bikes(tmp_path, files, script=script)

    def found(target: bytes) -> Entry:
        entry, _ = published.find(target, FIELDS)
        assert entry is not None
        return entry

    assert body(found(b"/bikes/")) == f"<body>x{script}</body>".encode()
    assert body(found(b"/bikes/a.txt")) == b"<body>x</body>"
    assert found(b"/bikes/none").respond(b"GET", FIELDS, b"")[2] == f"y{script}".encode()
