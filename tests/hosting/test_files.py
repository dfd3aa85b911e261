"""Which files of a folder are published, under which names, and which are refused."""

import os
import unicodedata
from pathlib import Path

import pytest

from server.hosting import SnapshotError
from server.hosting.files import published
from tests.conftest import unprivileged


def folder(root: Path, *names: str) -> Path:
    """A folder with these files, each of which holds its own name."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return root


def problems(root: Path) -> list[str]:
    with pytest.raises(SnapshotError) as caught:
        published(root)
    return caught.value.problems


def test_files_by_name(tmp_path: Path) -> None:
    root = folder(tmp_path, "index.html", "a/b/c.css", "a/b.html", "Ä ö?#%20.txt")
    assert published(root) == {name: root / name for name in ("index.html", "a/b/c.css", "a/b.html", "Ä ö?#%20.txt")}


def test_empty_folder_has_no_files(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert published(tmp_path) == {}


@pytest.mark.parametrize(
    "hidden",
    [
        ".env",
        ".git/config",
        "a/.htaccess",
        ".DS_Store",
        "_headers",
        "_redirects",
        "a/.b/c.html",
        ".well-known/.secret",
        ".well-knownx/y",
        "..a/b",
        "...",
    ],
)
def test_hidden_file_is_not_published(tmp_path: Path, hidden: str) -> None:
    assert list(published(folder(tmp_path, "index.html", hidden))) == ["index.html"]


@pytest.mark.parametrize("name", [".well-known/security.txt", "a/.well-known/x", "_redirects.txt", "a.env"])
def test_file_that_only_looks_hidden_is_published(tmp_path: Path, name: str) -> None:
    assert list(published(folder(tmp_path, name))) == [name]


def test_hidden_file_may_be_broken(tmp_path: Path) -> None:
    (tmp_path / ".link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / ".pipe")
    assert published(tmp_path) == {}


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_name_is_composed(tmp_path: Path, form: str) -> None:
    name = unicodedata.normalize("NFC" if form == "NFC" else "NFD", "é/ü.html")
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("x")
    assert published(tmp_path) == {unicodedata.normalize("NFC", "é/ü.html"): tmp_path / name}


def test_two_names_that_are_one_are_refused(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "é.html")).write_text(form)
    (line,) = problems(tmp_path)
    assert line.startswith(str(tmp_path)) and "has the same name as" in line


def test_two_folders_whose_names_are_one_may_hold_different_files(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "é")).mkdir()
        (tmp_path / unicodedata.normalize(form, "é") / f"{form}.html").write_text(form)
    assert sorted(published(tmp_path)) == ["é/NFC.html", "é/NFD.html"]


def test_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.html")).write_text("x")
    assert problems(tmp_path) == [f"{tmp_path}/caf\ufffd.html: has a name that is not UTF-8"]


def test_names_that_differ_in_case_are_two(tmp_path: Path) -> None:
    assert sorted(published(folder(tmp_path, "a.html", "A.html"))) == ["A.html", "a.html"]


# -- links ---------------------------------------------------------------------------------------------------------


def test_link_to_a_file_of_the_site(tmp_path: Path) -> None:
    (folder(tmp_path, "a.txt") / "b.txt").symlink_to("a.txt")
    assert published(tmp_path)["b.txt"].read_text() == "a.txt"


def test_linked_folder_within_the_site(tmp_path: Path) -> None:
    (folder(tmp_path, "a/x.txt") / "b").symlink_to("a", target_is_directory=True)
    found = published(tmp_path)
    assert sorted(found) == ["a/x.txt", "b/x.txt"]
    assert found["b/x.txt"].read_text() == "a/x.txt"


@pytest.mark.parametrize("target", ["../secret.txt", "/etc/passwd", "../public-old/x.txt", "../public"])
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


def test_link_out_of_the_site_by_way_of_another_is_refused_by_name(tmp_path: Path) -> None:
    public = folder(tmp_path / "public", "index.html")
    folder(tmp_path / "elsewhere", "x.txt")
    (public / ".hidden").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (public / "x.txt").symlink_to(".hidden/x.txt")
    assert problems(public) == [f"{public / 'x.txt'}: is a link that leads out of the site"]


@pytest.mark.parametrize("name", ["index.html", "style.css.gz", "404.html"])
def test_linked_file_out_of_the_site_is_refused_by_name(tmp_path: Path, name: str) -> None:
    public = folder(tmp_path / "public", "style.css")
    (public / name).symlink_to(folder(tmp_path, "secret.html") / "secret.html")
    assert problems(public) == [f"{public / name}: is a link that leads out of the site"]


@pytest.mark.parametrize("target", [".env", ".git/config", "a/.b/c", ".git"])
def test_link_to_what_is_hidden_is_refused_by_name(tmp_path: Path, target: str) -> None:
    root = folder(tmp_path, "index.html", ".env", ".git/config", "a/.b/c")
    (root / "link").symlink_to(target)
    assert problems(root) == [f"{root / 'link'}: is a link to what is not published"]


@pytest.mark.parametrize("target", ["_headers", "_redirects"])
def test_link_to_the_rules_is_refused_by_name(tmp_path: Path, target: str) -> None:
    root = folder(tmp_path, "index.html", "_headers", "_redirects")
    (root / "link.txt").symlink_to(target)
    assert problems(root) == [f"{root / 'link.txt'}: is a link to what is not published"]


def test_link_to_well_known_is_none_to_what_is_hidden(tmp_path: Path) -> None:
    (folder(tmp_path, ".well-known/security.txt") / "security.txt").symlink_to(".well-known/security.txt")
    assert sorted(published(tmp_path)) == [".well-known/security.txt", "security.txt"]


def test_link_to_itself_and_link_to_nothing(tmp_path: Path) -> None:
    public = folder(tmp_path / "public", "index.html")
    (public / "loop").symlink_to("loop")
    (public / "gone").symlink_to("nothing")
    assert problems(public) == [f"{public / name}: is no file, or cannot be read" for name in ("gone", "loop")]


@pytest.mark.parametrize("target", ["..", ".", "../../a"])
def test_link_round_in_a_circle_is_refused_by_name(tmp_path: Path, target: str) -> None:
    public = folder(tmp_path / "public", "a/b/x.txt")
    (public / "a" / "b" / "up").symlink_to(target, target_is_directory=True)
    assert problems(public) == [f"{public / 'a' / 'b' / 'up'}: is a link to a folder that it lies in"]


def test_link_to_the_root_is_refused_by_name(tmp_path: Path) -> None:
    public = folder(tmp_path / "public", "a/x.txt")
    (public / "a" / "up").symlink_to("..", target_is_directory=True)
    assert len(problems(public)) == 1


def test_links_to_one_another_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, "a/x.txt", "b/y.txt")
    (tmp_path / "a" / "b").symlink_to("../b", target_is_directory=True)
    (tmp_path / "b" / "a").symlink_to("../a", target_is_directory=True)
    assert len(problems(tmp_path)) == 2


def test_root_may_be_a_link(tmp_path: Path) -> None:
    folder(tmp_path / "build" / "out", "index.html", "a/x.css")
    (tmp_path / "build" / "out" / "b.css").symlink_to("a/x.css")
    (tmp_path / "public").symlink_to(tmp_path / "build" / "out", target_is_directory=True)
    found = published(tmp_path / "public")
    assert sorted(found) == ["a/x.css", "b.css", "index.html"]
    assert found["a/x.css"] == tmp_path / "public" / "a" / "x.css"


# -- what cannot be published --------------------------------------------------------------------------------------


def test_pipe_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(folder(tmp_path, "index.html") / "pipe")
    assert problems(tmp_path) == [f"{tmp_path / 'pipe'}: is no file, or cannot be read"]


@pytest.mark.parametrize("mode", [0o000, 0o400])
def test_locked_folder_is_refused_by_name(mode: int) -> None:
    with unprivileged() as root:
        locked = folder(root, "index.html", "a/x.css") / "a"
        locked.chmod(mode)
        (line,) = problems(root)
        locked.chmod(0o700)
        assert line.startswith(str(locked))


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    assert problems(tmp_path / "none") == [f"{tmp_path / 'none'}: cannot be read: No such file or directory"]


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        os.mkfifo(tmp_path / name)
    assert len(problems(tmp_path)) == 3
