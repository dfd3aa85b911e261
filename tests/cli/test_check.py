from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.conftest import REPOSITORY, add_site


def test_everything_in_order(run: Run) -> None:
    result = run("check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "/bikes/  Bike Shed",
        "    pages and files  1",
        "    form fields      colour, message",
        "    mail from        Bike Shed <hello@bikeshed.example>",
        "    asks to confirm  no (double_opt_in = false)",
        "    notice to        owner@bikeshed.example",
        "    note: links in its mails begin with http://localhost:8000 (DOORBELL_BASE_URL): that reaches nobody "
        "elsewhere, or not safely; unsubscribing with one click needs https (RFC 8058)",
        "Everything is in order.",
    ]


def test_nothing_is_made(run: Run, tmp_path: Path) -> None:
    run("check")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["sites"]


def test_sites_of_the_repository_are_in_order(run: Run) -> None:
    result = run("check", SITES_DIR=str(REPOSITORY / "sites"))
    assert result.exit_code == 0, result.output


def test_site_that_links_by_https_needs_no_note(run: Run, sites: Path) -> None:
    add_site(sites, "lamps", 'hosts = ["lamps.example"]\ntitle = "Lamps"\n[mail]\nnotify = ["o@lamps.example"]\n')
    told = run("check", BASE_URL="https://doorbell.example")
    assert (told.exit_code, "note:" in told.stdout) == (0, False)
    assert "note:" not in run("check").stdout.partition("/lamps/")[2]


def test_what_may_surprise_is_told(run: Run, sites: Path) -> None:
    add_site(sites, "lamps", 'title = "Lamps"\nhosts = ["lamps.example"]\n')
    told = run("check").stdout.partition("/lamps/")[2]
    assert "domain           lamps.example" in told and "asks to confirm  yes" in told
    assert "nobody (mail.notify is empty)" in told and "Lamps <noreply@localhost>" in told
    assert "note: nobody is told of a signup" in told


def test_no_sites(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("check", SITES_DIR=str(tmp_path / "empty"))
    assert (result.exit_code, "No sites in" in result.stdout) == (0, True)


def test_every_problem_is_a_line_on_stderr(run: Run, sites: Path) -> None:
    add_site(sites, "lamps", 'title = "Lamps"\ncolour = "red"')
    (sites / "bikes" / "emails").mkdir()
    (sites / "bikes" / "emails" / "notice.txt").write_text("{{ nobody }}")
    result = run("check")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "These sites are not in order:",
        f"  - {sites / 'lamps' / 'site.toml'}: colour: unknown key",
        f"  - {sites / 'bikes' / 'emails' / 'notice.txt'}:1: 'nobody' is undefined",
    ]


def test_part_that_is_missing(run: Run, sites: Path) -> None:
    page = sites / "bikes" / "public" / "index.html"
    page.write_text('<!--#include file="header.html" -->')
    result = run("check")
    assert (result.exit_code, f"{page}: includes 'header.html'" in result.stderr) == (1, True)


def test_sites_folder_missing(run: Run, tmp_path: Path) -> None:
    result = run("check", SITES_DIR=str(tmp_path / "none"))
    assert (result.exit_code, str(tmp_path / "none") in result.stderr) == (1, True)


@pytest.mark.parametrize(
    "command", [["check"], ["serve"], ["migrate"], ["mail", "test", "a@example.com"], ["mail", "list"]]
)
def test_wrong_settings_stop_every_command(run: Run, command: list[str]) -> None:
    result = run(*command, PORT="x", SMPT_URL="smtp://mail.example.com")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines()[0] == "Doorbell cannot start: these settings are wrong."
    assert "  - DOORBELL_PORT: " in result.stderr
    assert "  - DOORBELL_SMPT_URL: is not a setting of this version; did you mean DOORBELL_SMTP_URL?" in result.stderr


def test_env_file_of_the_working_folder_is_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DOORBELL_OPS=everybody\n")
    result = run("check")
    assert (result.exit_code, "DOORBELL_OPS: " in result.stderr) == (1, True)


def test_relay_without_a_sender(run: Run, sites: Path) -> None:
    add_site(sites, "lamps", 'title = "Lamps"')
    assert run("check").exit_code == 0
    result = run("check", SMTP_URL="smtp://mail.example.com")
    assert (result.exit_code, "DOORBELL_MAIL_FROM is not set" in result.stderr) == (1, True)
    result = run("check", SMTP_URL="smtp://mail.example.com", MAIL_FROM="Lamps <l@lamps.example>")
    assert (result.exit_code, "Lamps <l@lamps.example>" in result.stdout) == (0, True)
    result = run("check", MAIL_FROM="Smith, Jones <l@lamps.example>")
    assert (result.exit_code, "DOORBELL_MAIL_FROM: must look like" in result.stderr) == (1, True)


def test_options_that_are_wrong_name_the_variable(run: Run) -> None:
    result = run("serve", "--port", "0")
    assert (result.exit_code, "DOORBELL_PORT: " in result.stderr) == (1, True)


@pytest.mark.parametrize(
    "command", [[], ["--help"], ["mail"], ["mail", "--help"], ["mail", "retry", "--help"], ["serve", "--help"]]
)
def test_help(run: Run, command: list[str]) -> None:
    assert "Usage: " in run(*command).output


def test_unknown_command(run: Run) -> None:
    assert run("chekc").exit_code == 2
