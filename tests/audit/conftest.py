"""What an audit needs: the real server with both sites, each at a domain of its own too, a browser, and the checkers.

AUDIT=full is the long form (`make audit`): everything, and a table of what was measured.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from rich.console import Console
from rich.table import Table

from tests.audit.pages import SLUGS, Page, domain
from tests.conftest import skip_or_fail, with_domains
from tests.e2e.conftest import HTTP, ForkedServer, Server, browser

__all__ = ["browser"]

FULL = os.environ.get("AUDIT") == "full"
MODULES = Path(__file__).with_name("node_modules")


@dataclass(frozen=True, slots=True)
class Host:
    """The server with both sites: each below its path, and at the root of domains of its own."""

    server: Server

    def below(self, page: Page) -> str:
        """The page's URL under its site's path."""
        return f"{self.server.url}/{page.slug}/{page.path}"

    def own(self, page: Page) -> str:
        """The page's URL on its site's own domain. Browsers look for .localhost on this machine, and trust it."""
        return f"http://{_local(page.slug)}:{self.server.port}/{page.path}"

    def ask(self, path: str, slug: str | None = None) -> httpx.Response:
        """GET, as the host of a site or as none of theirs."""
        headers = {"host": f"{_local(slug)}:{self.server.port}" if slug else f"localhost:{self.server.port}"}
        return HTTP.get(f"http://127.0.0.1:{self.server.port}{path}", headers=headers)


def _local(slug: str) -> str:
    return f"{slug.replace('_', '-')}.localhost"


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The server, with a copy of the sites that has domains."""
    root = tmp_path_factory.mktemp("audit")
    sites = with_domains(root / "sites", {slug: (domain(slug), _local(slug)) for slug in SLUGS})
    environ = {"DOORBELL_SITES_DIR": str(sites), "DOORBELL_DATA_DIR": str(root / "var")}
    server = ForkedServer(environ, root / "server.log")
    server.start()
    yield Host(server)
    assert server.end() == 0


def module(name: str) -> Path:
    """A file of an npm package that the audit needs."""
    if not (MODULES / name).exists():
        skip_or_fail("npm's packages for the audit are not installed: make install-audit")
    return MODULES / name


def none(found: Iterable[str]) -> None:
    """Fails with every line of what was found."""
    lines = list(found)
    assert not lines, "\n".join(["", *lines])


def program(name: str) -> str:
    """A program of the system."""
    found = shutil.which(name)
    if found is None:
        skip_or_fail(f"{name} is not installed")
    assert found is not None
    return found


# -- the table -----------------------------------------------------------------------------------------------------


@dataclass
class Board:
    """What was measured, by page and column."""

    rows: dict[str, dict[str, str]] = field(default_factory=dict)

    def note(self, page: Page, **figures: str) -> None:
        self.rows.setdefault(str(page), {}).update(figures)


_BOARD = pytest.StashKey[Board]()


@pytest.fixture(scope="session")
def board(request: pytest.FixtureRequest) -> Board:
    return request.config.stash.setdefault(_BOARD, Board())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    board = config.stash.get(_BOARD, None)
    if board is None or not FULL:
        return
    columns = list(dict.fromkeys(name for figures in board.rows.values() for name in figures))
    table = Table("page", *columns, title="What was measured")
    for page, figures in sorted(board.rows.items()):
        table.add_row(page, *(figures.get(name, "") for name in columns))
    terminalreporter.ensure_newline()
    Console(file=terminalreporter._tw._file, width=120).print(table)
