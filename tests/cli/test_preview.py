"""`mail preview`: files to open, and pictures where there is a Chromium."""

import shutil
import struct
from pathlib import Path

import pytest

from server.cli import chromium
from server.mail.templates import KINDS
from tests.cli.conftest import Run
from tests.conftest import skip_or_fail


@pytest.fixture
def no_chromium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


@pytest.mark.usefixtures("no_chromium")
def test_all_kinds_are_written_and_said(run: Run, tmp_path: Path) -> None:
    result = run("mail", "preview", "bikes", "all", "--out", "here")
    assert (result.exit_code, result.stderr) == (0, "")
    written = [f"here/{kind}.{part}" for kind in KINDS for part in ("html", "txt")]
    assert result.stdout.splitlines() == [*written, "No pictures: Chromium is not installed."]
    assert sorted(file.name for file in (tmp_path / "here").iterdir()) == sorted(Path(file).name for file in written)


@pytest.mark.usefixtures("no_chromium")
def test_one_kind_has_the_sample_of_the_site(run: Run, tmp_path: Path) -> None:
    assert run("mail", "preview", "bikes", "notice").exit_code == 0
    folder = tmp_path / "mail-preview"
    assert sorted(file.name for file in folder.iterdir()) == ["notice.html", "notice.txt"]
    text = (folder / "notice.txt").read_text("utf-8")
    assert text.startswith("Subject: New signup: Bike Shed\n") and "Which colour?\n  Red\n" in text
    assert 'class="card" style="' in (folder / "notice.html").read_text("utf-8")


@pytest.mark.usefixtures("no_chromium")
def test_real_sites_links_and_names_are_in_their_mails(run: Run, tmp_path: Path) -> None:
    run("mail", "preview", "bikes", "confirm", BASE_URL="https://sites.example")
    html = (tmp_path / "mail-preview" / "confirm.html").read_text("utf-8")
    assert 'href="https://sites.example/confirm/' in html and 'href="https://sites.example/unsubscribe/' in html


@pytest.mark.parametrize(
    ("slug", "kind", "why"),
    [("bikes", "nonsense", "confirm, already, welcome"), ("nobody", "welcome", "nobody/site.toml")],
)
def test_unknown_site_or_template_is_refused(run: Run, slug: str, kind: str, why: str) -> None:
    result = run("mail", "preview", slug, kind)
    assert result.exit_code == 1 and why in result.stderr


def test_broken_template_is_named(run: Run, sites: Path) -> None:
    (sites / "bikes" / "emails").mkdir()
    (sites / "bikes" / "emails" / "welcome.html").write_text("{{ oops }}")
    result = run("mail", "preview", "bikes", "welcome")
    assert result.exit_code == 1 and "welcome.html:1: 'oops' is undefined" in result.stderr


@pytest.mark.usefixtures("no_chromium")
def test_folder_that_cannot_be_written_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("a file")
    result = run("mail", "preview", "bikes", "welcome", "--out", "here")
    assert result.exit_code == 1 and "here" in result.stderr


@pytest.mark.browser
def test_pictures_are_of_both_widths_and_schemes(run: Run, tmp_path: Path) -> None:
    if chromium.find() is None:
        skip_or_fail("Chromium is not installed")
    result = run("mail", "preview", "bikes", "welcome", "--out", "here")
    assert result.exit_code == 0, result.stderr
    pictures = {file.name: file.read_bytes() for file in (tmp_path / "here").glob("*.png")}
    assert sorted(pictures) == [f"welcome-{width}-{scheme}.png" for width in (320, 640) for scheme in ("dark", "light")]
    for name, data in pictures.items():
        width, height = struct.unpack(">II", data[16:24])
        assert width == 2 * int(name.split("-")[1]) and height > 300
    assert pictures["welcome-320-dark.png"] != pictures["welcome-320-light.png"]


@pytest.mark.parametrize("program", ["exit 0", "exec 3<&-; exec 4>&-; sleep 1"])
def test_chromium_that_does_not_work_is_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    fake = tmp_path / "bin" / "chromium"
    fake.parent.mkdir()
    fake.write_text(f"#!{shutil.which('sh')}\n{program}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=":")
    result = run("mail", "preview", "bikes", "welcome")
    assert result.exit_code == 1 and "Chromium did not do it" in result.stderr
    assert "welcome.html" in result.stdout  # what could be written is there
