"""What is served is valid: the Nu HTML checker has neither an error nor a warning."""

from pathlib import Path

import pytest

from tests.audit.conftest import Board, Host
from tests.audit.nu import complaints
from tests.audit.pages import SLUGS, folder, pages

pytestmark = pytest.mark.e2e

# Which files are checked as well, by their ending: those that are no pages.
OTHERS = ("css", "svg")


def test_markup_is_valid(host: Host, board: Board, tmp_path: Path) -> None:
    files = {}
    for page in pages():
        files[page] = tmp_path / page.slug / f"{page.name.strip('/').replace('/', '-') or 'index'}.html"
        files[page].parent.mkdir(exist_ok=True)
        files[page].write_bytes(host.ask(f"/{page.slug}/{page.path}").content)
    others = [file for slug in SLUGS for ending in OTHERS for file in folder(slug).rglob(f"*.{ending}")]
    found = complaints([*files.values(), *others])
    for page, file in files.items():
        board.note(page, Nu=str(sum(file.as_uri() in line for line in found)))
    assert found == []
