import os
from pathlib import Path

import pytest

from server.hosting import Snapshot, SnapshotError, load, of
from server.hosting.snapshot import Answer, Redirect
from tests.conftest import unprivileged


def folder(root: Path, *names: str) -> Path:
    """A folder with these files, each of which holds its own name."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return root


def answer(snapshot: Snapshot, path: str) -> Answer:
    found = snapshot.look_up(path)
    assert isinstance(found, Answer)
    return found


def problems(root: Path) -> list[str]:
    with pytest.raises(SnapshotError) as caught:
        load(root)
    return caught.value.problems


def test_first_page_has_two_addresses(tmp_path: Path) -> None:
    snapshot = load(folder(tmp_path, "index.html"))
    assert sorted(snapshot.table) == ["", "index.html"]
    assert answer(snapshot, "") is answer(snapshot, "index.html")


def test_folder_with_a_page_redirects_to_its_slash(tmp_path: Path) -> None:
    snapshot = load(folder(tmp_path, "a/b/index.html"))
    assert snapshot.look_up("a/b") == Redirect("b/")
    assert answer(snapshot, "a/b/").body == b"a/b/index.html"


def test_folder_without_a_page_is_nowhere(tmp_path: Path) -> None:
    snapshot = load(folder(tmp_path, "a/x.css"))
    assert (snapshot.look_up("a"), snapshot.look_up("a/")) == (None, None)


@pytest.mark.parametrize(
    "hidden", [".env", ".git/config", "a/.htaccess", ".DS_Store", "_headers", "_redirects", "a/.b/c.html"]
)
def test_hidden_file_is_not_published(tmp_path: Path, hidden: str) -> None:
    snapshot = load(folder(tmp_path, "index.html", hidden))
    assert len(snapshot) == 2
    assert snapshot.look_up(hidden) is None


def test_well_known_is_published(tmp_path: Path) -> None:
    snapshot = load(folder(tmp_path, ".well-known/security.txt"))
    assert answer(snapshot, ".well-known/security.txt").media_type == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.svg", "image/svg+xml; charset=utf-8"),
        ("a.json", "application/json; charset=utf-8"),
        ("a.woff2", "font/woff2"),
        ("a.avif", "image/avif"),
        ("a.PNG", "image/png"),
        ("a.nothing", "application/octet-stream"),
        ("CNAME", "application/octet-stream"),
    ],
)
def test_media_type(tmp_path: Path, name: str, media_type: str) -> None:
    assert answer(load(folder(tmp_path, name)), name).media_type == media_type


def test_etag_is_of_the_content(tmp_path: Path) -> None:
    file = folder(tmp_path, "a.txt") / "a.txt"
    os.utime(file, (1, 1))
    before = answer(load(tmp_path), "a.txt").etag
    file.write_text("b.txt")  # as long as before
    os.utime(file, (1, 1))
    assert answer(load(tmp_path), "a.txt").etag != before
    file.write_text("a.txt")
    assert answer(load(tmp_path), "a.txt").etag == before


@pytest.mark.parametrize(
    "asked", ["caf%C3%A9%20au%20lait.html", "caf%c3%a9%20au lait.html", "c%61f%C3%A9%20au%20lait.html"]
)
def test_every_spelling_of_an_encoded_name(tmp_path: Path, asked: str) -> None:
    snapshot = load(folder(tmp_path, "café au lait.html"))
    assert answer(snapshot, asked).body == "café au lait.html".encode()


def test_name_full_of_url_characters(tmp_path: Path) -> None:
    snapshot = load(folder(tmp_path, "a?b#c%20.txt"))
    assert answer(snapshot, "a%3Fb%23c%2520.txt").body == b"a?b#c%20.txt"
    assert snapshot.look_up("a%3Fb%23c%20.txt") is None


@pytest.mark.parametrize(
    "asked", ["a%2Fx.css", "a%2fx.css", "a\\x.css", "a%5Cx.css", "./a/x.css", "a/../a/x.css", "a//x.css"]
)
def test_other_ways_to_a_file_are_nowhere(tmp_path: Path, asked: str) -> None:
    assert load(folder(tmp_path, "a/x.css")).look_up(asked) is None


def test_own_404_page(tmp_path: Path) -> None:
    assert load(folder(tmp_path, "index.html")).not_found is None
    missing = load(folder(tmp_path, "404.html")).not_found
    assert missing is not None and missing.body == b"404.html"


# -- links ---------------------------------------------------------------------------------------------------------


def test_link_to_a_file_of_the_site(tmp_path: Path) -> None:
    (folder(tmp_path, "a.txt") / "b.txt").symlink_to("a.txt")
    assert answer(load(tmp_path), "b.txt").body == b"a.txt"


@pytest.mark.parametrize("target", ["../secret.txt", "/etc/passwd", "../public-old/x.txt"])
def test_link_out_of_the_site_is_refused_by_name(tmp_path: Path, target: str) -> None:
    public = folder(tmp_path / "public", "index.html")
    folder(tmp_path, "secret.txt", "public-old/x.txt")
    (public / "a").mkdir()
    (public / "a" / "link.txt").symlink_to(Path("..") / target if target.startswith("..") else target)
    assert problems(public) == [f"{public / 'a' / 'link.txt'}: is a link that leads out of the site"]


def test_linked_folder_out_of_the_site_is_refused_by_name(tmp_path: Path) -> None:
    public = folder(tmp_path / "public", "index.html")
    folder(tmp_path / "elsewhere", "index.html")
    (public / "docs").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert problems(public) == [f"{public / 'docs'}: is a link that leads out of the site"]


def test_linked_first_page_out_of_the_site_is_refused_by_name(tmp_path: Path) -> None:
    public = folder(tmp_path / "public", "style.css")
    (public / "index.html").symlink_to(folder(tmp_path, "secret.html") / "secret.html")
    assert problems(public) == [f"{public / 'index.html'}: is a link that leads out of the site"]


def test_link_to_itself_and_link_to_nothing(tmp_path: Path) -> None:
    public = folder(tmp_path / "public", "index.html")
    (public / "loop").symlink_to("loop")
    (public / "gone").symlink_to("nothing")
    assert problems(public) == [f"{public / name}: is no file, or cannot be read" for name in ("gone", "loop")]


def test_root_may_be_a_link(tmp_path: Path) -> None:
    folder(tmp_path / "build" / "out", "index.html", "a/x.css")
    (tmp_path / "public").symlink_to(tmp_path / "build" / "out", target_is_directory=True)
    assert answer(load(tmp_path / "public"), "a/x.css").body == b"a/x.css"


# -- what cannot be published --------------------------------------------------------------------------------------


def test_pipe_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(folder(tmp_path, "index.html") / "pipe")
    assert problems(tmp_path) == [f"{tmp_path / 'pipe'}: is no file, or cannot be read"]


def test_locked_file_is_refused_by_name() -> None:
    with unprivileged() as root:
        (folder(root, "index.html", "a.css", "b.css") / "a.css").chmod(0)
        assert problems(root) == [f"{root / 'a.css'}: cannot be read: Permission denied"]


@pytest.mark.parametrize("mode", [0o000, 0o400])
def test_locked_folder_is_refused_by_name(mode: int) -> None:
    with unprivileged() as root:
        locked = folder(root, "index.html", "a/x.css") / "a"
        locked.chmod(mode)
        (line,) = problems(root)
        locked.chmod(0o700)
        assert line.startswith(str(locked))


def test_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.html")).write_text("x")
    assert problems(tmp_path) == [f"{tmp_path}/caf\ufffd.html: has a name that is not UTF-8"]


def test_file_gone_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"gone\.css: cannot be read: No such file"):
        of({"gone.css": tmp_path / "gone.css"})


def test_every_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        os.mkfifo(tmp_path / name)
    assert len(problems(tmp_path)) == 3
