"""What is served is valid: the Nu HTML checker has neither an error nor a warning."""

from pathlib import Path

import pytest

from tests.audit.conftest import Board, Host, none
from tests.audit.nu import complaints
from tests.audit.pages import SLUGS, folder, pages

pytestmark = pytest.mark.e2e


def test_markup_is_valid(host: Host, board: Board, tmp_path: Path) -> None:
    files = {}
    for page in pages():
        files[page] = tmp_path / page.slug / f"{page.name.strip('/').replace('/', '-') or 'index'}.html"
        files[page].parent.mkdir(exist_ok=True)
        files[page].write_bytes(host.ask(f"/{page.slug}/{page.path}").content)
    drawings = [file for slug in SLUGS for file in folder(slug).rglob("*.svg")]
    found = complaints([*files.values(), *drawings])
    for page, file in files.items():
        board.note(page, Nu=str(sum(file.as_uri() in line for line in found)))
    none(found)
