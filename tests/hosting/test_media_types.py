import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from server.hosting import mime_db
from server.hosting.media_types import TABLE, compressible, guess, is_document
from tests.conftest import REPOSITORY, skip_or_fail


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The npm package that the table says it was made of."""
    npm = shutil.which("npm")
    if npm is None:
        skip_or_fail("no npm here")
    assert npm is not None
    folder = tmp_path_factory.mktemp("mime-db")
    version = json.loads(TABLE.read_text(encoding="utf-8"))["version"]
    command = [npm, "pack", "--silent", f"mime-db@{version}"]
    try:
        packed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        skip_or_fail("npm did not come back")
    if packed.returncode:
        skip_or_fail(f"npm cannot fetch mime-db: {packed.stderr[-200:]}")
    with tarfile.open(folder / f"mime-db-{version}.tgz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def test_table_is_what_its_source_gives(package: Path) -> None:
    assert mime_db.table(package) == TABLE.read_text(encoding="utf-8")


def test_table_names_source_and_licence() -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert table["source"].endswith(f"mime-db {table['version']}")
    assert any("MIT" in line for line in table["licence"])
    assert any("Copyright" in line for line in table["licence"])


def test_source_that_lost_a_chosen_type_is_refused(tmp_path: Path) -> None:
    database = {name: {"source": "iana"} for name in mime_db.CHOSEN.values() if name != "audio/wav"}
    (tmp_path / "db.json").write_text(json.dumps(database))
    (tmp_path / "package.json").write_text('{"version": "9.9.9"}')
    with pytest.raises(ValueError, match="audio/wav"):
        mime_db.table(tmp_path)


def test_registered_type_wins_then_the_order_of_extensions_then_the_alphabet(tmp_path: Path) -> None:
    database: mime_db.Database = {name: {"source": "iana"} for name in mime_db.CHOSEN.values()}
    database |= {
        "a/others": {"extensions": ["x"]},
        "a/nginx": {"source": "nginx", "extensions": ["x", "y"]},
        "z/iana": {"source": "iana", "extensions": ["x", "q", "r"]},
        "b/iana": {"source": "iana", "extensions": ["s", "q"]},
        "c/iana": {"source": "iana", "extensions": ["t", "q", "r"]},
    }
    (tmp_path / "db.json").write_text(json.dumps(database))
    (tmp_path / "package.json").write_text('{"version": "9.9.9"}')
    (tmp_path / "LICENSE").write_text("MIT")
    types = json.loads(mime_db.table(tmp_path))["types"]
    assert (types["x"], types["y"], types["q"], types["r"]) == ("z/iana", "a/nginx", "b/iana", "c/iana")


def test_script_without_a_folder_says_how_it_is_used() -> None:
    command = [sys.executable, "-W", "error", "-m", "server.hosting.mime_db"]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("usage: ")


TEXT = [
    ("a.html", "text/html"),
    ("a.htm", "text/html"),
    ("a.xhtml", "application/xhtml+xml"),
    ("a.css", "text/css"),
    ("a.js", "text/javascript"),
    ("a.mjs", "text/javascript"),
    ("a.min.js", "text/javascript"),
    ("a.json", "application/json"),
    ("a.js.map", "application/json"),
    ("a.webmanifest", "application/manifest+json"),
    ("a.svg", "image/svg+xml"),
    ("a.xml", "application/xml"),
    ("a.rss", "application/rss+xml"),
    ("a.atom", "application/atom+xml"),
    ("a.md", "text/markdown"),
    ("a.txt", "text/plain"),
    ("a.csv", "text/csv"),
    ("a.ics", "text/calendar"),
    ("a.vtt", "text/vtt"),
    ("a.yaml", "text/yaml"),
    ("a.geojson", "application/geo+json"),
    ("a.gltf", "model/gltf+json"),
]
OTHER = [
    ("a.ico", "image/vnd.microsoft.icon"),
    ("a.woff", "font/woff"),
    ("a.woff2", "font/woff2"),
    ("a.ttf", "font/ttf"),
    ("a.avif", "image/avif"),
    ("a.webp", "image/webp"),
    ("a.png", "image/png"),
    ("a.jpg", "image/jpeg"),
    ("a.gif", "image/gif"),
    ("a.wasm", "application/wasm"),
    ("a.ts", "video/mp2t"),
    ("a.glb", "model/gltf-binary"),
    ("a.mp4", "video/mp4"),
    ("a.m4a", "audio/mp4"),
    ("a.mp3", "audio/mpeg"),
    ("a.ogg", "audio/ogg"),
    ("a.wav", "audio/wav"),
    ("a.webm", "video/webm"),
    ("a.pdf", "application/pdf"),
    ("a.zip", "application/zip"),
]


@pytest.mark.parametrize(("name", "media_type"), TEXT)
def test_text_says_its_charset(name: str, media_type: str) -> None:
    assert guess(name) == f"{media_type}; charset=utf-8"


@pytest.mark.parametrize(("name", "media_type"), OTHER)
def test_type_without_charset(name: str, media_type: str) -> None:
    assert guess(name) == media_type


@pytest.mark.parametrize("name", ["a.JS", "a.Js", "folder.css/a.jS", "ä ö.js", "..js"])
def test_case_and_folders_do_not_matter(name: str) -> None:
    assert guess(name) == "text/javascript; charset=utf-8"


@pytest.mark.parametrize(
    "name",
    ["CNAME", "README", "", ".", ".js", "a.", "a.html.bak", "a.html~", "a.js/", "folder.js/a", "a.nothing", "a.b"],
)
def test_unknown_name(name: str) -> None:
    assert guess(name) == "application/octet-stream"


@pytest.mark.parametrize("name", ["a.gz", "a.tar.gz", "a.html.gz", "a.svgz"])
def test_gzipped_file_is_gzip(name: str) -> None:
    assert guess(name) == "application/gzip"


@pytest.mark.parametrize(
    "name", [name for name, _ in TEXT] + ["a.ico", "a.ttf", "a.otf", "a.wasm", "a.glb", "a.bmp", "a.obj"]
)
def test_worth_a_try_to_compress(name: str) -> None:
    assert compressible(guess(name))


@pytest.mark.parametrize(
    "name", ["a.png", "a.jpg", "a.webp", "a.avif", "a.woff2", "a.mp4", "a.mp3", "a.pdf", "a.zip", "a.gz", "a.svgz", "a"]
)
def test_compressed_already_or_unknown(name: str) -> None:
    assert not compressible(guess(name))


@pytest.mark.parametrize("media_type", ["TEXT/HTML", "text/html ; charset=iso-8859-1", "Application/Problem+JSON"])
def test_compressible_whatever_the_spelling(media_type: str) -> None:
    assert compressible(media_type)


@pytest.mark.parametrize(
    "name", ["a.html", "a.htm", "a.xhtml", "a.svg", "a.xml", "a.rss", "a.atom", "a.mathml", "a.xsl"]
)
def test_document(name: str) -> None:
    assert is_document(guess(name))


@pytest.mark.parametrize("media_type", ["text/xml", "Text/HTML;charset=x", "application/XHTML+xml"])
def test_document_whatever_the_spelling(media_type: str) -> None:
    assert is_document(media_type)


@pytest.mark.parametrize("name", ["a.css", "a.js", "a.json", "a.txt", "a.png", "a.pdf", "a.md", "a", "a.webmanifest"])
def test_no_document(name: str) -> None:
    assert not is_document(guess(name))
