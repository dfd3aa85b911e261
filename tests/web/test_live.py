"""`serve --reload` within the process: what counts as a change, and what open pages are told. See tests/e2e too."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.app import create_app
from server.settings import Settings
from server.web import live
from server.web.live import Live
from tests.conftest import SITE_TOML, eventually, listening, running

CHANGED = [
    "bikes",
    "bikes/site.toml",
    "bikes/public",
    "bikes/public/index.html",
    "bikes/public/_redirects",
    "bikes/public/.well-known/security.txt",
    "bikes/public/a/b/c.css",
    "bikes/emails/welcome.html",
]
TEMPORARY = [
    "bikes/public/index.html~",
    "bikes/public/#index.html#",
    "bikes/public/4913",
    "bikes/public/index.html___jb_tmp___",
    "bikes/public/index.html.tmp",
]
NEVER = [
    ".git",
    ".git/index",
    "bikes/.DS_Store",
    "bikes/public/.index.html.swp",
    "bikes/public/.#index.html",
    "bikes/public/.git/index.html",
    "bikes/README.md",
    "bikes/node_modules/a/index.html",
]


@pytest.mark.parametrize("path", CHANGED)
def test_what_a_site_is_made_from_matters(path: str) -> None:
    assert live.matters(path, wrong=False)


@pytest.mark.parametrize("path", [*TEMPORARY, *NEVER])
def test_what_an_editor_leaves_and_what_is_not_read_does_not(path: str) -> None:
    assert not live.matters(path, wrong=False)


@pytest.mark.parametrize(("path", "matters"), [(TEMPORARY[0], True), (NEVER[0], False), (NEVER[3], False)])
def test_a_temporary_file_may_be_what_is_wrong(path: str, matters: bool) -> None:
    assert live.matters(path, wrong=True) is matters


def test_version_is_that_of_the_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    first = live.version([one, two])
    assert first == live.version([two, one]) == live.version([one, tmp_path / "none", two])
    assert first != live.version([one])
    os.utime(one, ns=(1, 1))
    assert live.version([one, two]) != first


async def test_page_that_is_behind_is_told_the_newest_state() -> None:
    told = Live()
    told.tell("one")
    events = told.events()
    assert await anext(events) == b"retry: 1000\n\n"
    assert await anext(events) == b'data: {"version": "one", "problems": []}\n\n'
    for version in ("two", "three"):
        told.tell(version, ["a\nb"])
    assert told.wrong
    assert await anext(events) == b'data: {"version": "three", "problems": ["a\\nb"]}\n\n'
    waiting = asyncio.ensure_future(anext(events, b"end"))
    await asyncio.sleep(0)
    told.close()
    assert await waiting == b"end"


async def test_production_has_none_of_it(client: httpx.AsyncClient) -> None:
    assert (await client.get("/_doorbell/reload")).status_code == 404
    assert (await client.get("/_doorbell/reload.js")).status_code == 404
    assert "script" not in (await client.get("/bikes/")).text


async def test_every_page_has_the_script_and_nothing_is_kept(settings: Settings) -> None:
    public = settings.sites_dir / "bikes" / "public"
    (settings.sites_dir / "bikes" / "site.toml").write_text('hosts = ["bikes.example"]\n' + SITE_TOML)
    (public / "404.html").write_text("<title>Gone</title>")
    (public / "app.3f2a91bc.js").write_text("1")
    (public / "style.css").write_text("a {}")
    (public / "_headers").write_text("/style.css\n  Cache-Control: max-age=99\n")
    app = create_app(settings, reloads=True)
    async with running(app) as client:
        version = app.state.current.sites.version
        for path, host in (("/bikes/", "localhost"), ("/bikes/none", "localhost"), ("/", "bikes.example")):
            page = await client.get(path, headers={"host": host})
            assert live.element(version) in page.text
            assert page.headers["cache-control"] == "no-cache"
        for name in ("app.3f2a91bc.js", "style.css"):
            answer = await client.get(f"/bikes/{name}")
            assert (answer.headers["cache-control"], "script" in answer.text) == ("no-cache", False)
        for host in ("localhost", "bikes.example"):
            script = await client.get("/_doorbell/reload.js", headers={"host": host})
            assert (script.status_code, script.headers["cache-control"]) == (200, "no-cache")
        assert not any("reload" in path for path in (await client.get("/openapi.json")).json()["paths"])


@dataclass
class Stream:
    """What a page has been told."""

    headers: dict[str, str]
    states: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False

    def last(self, problems: int) -> bool:
        return bool(self.states) and len(self.states[-1]["problems"]) == problems


@asynccontextmanager
async def page_open(port: int, host: str = "localhost") -> AsyncIterator[Stream]:
    """A page that listens, until it is closed."""
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=None) as client,
        client.stream("GET", "/_doorbell/reload", headers={"host": host}) as answer,
    ):
        assert answer.status_code == 200
        stream = Stream(dict(answer.headers))

        async def listen() -> None:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    stream.states.append(json.loads(line[6:]))
            stream.ended = True

        task = asyncio.create_task(listen())
        try:
            await eventually(lambda: bool(stream.states))
            yield stream
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.mark.parametrize("host", ["localhost", "bikes.example"])
async def test_edits_reach_open_pages(settings: Settings, host: str) -> None:
    toml = settings.sites_dir / "bikes" / "site.toml"
    toml.write_text('hosts = ["bikes.example"]\n' + SITE_TOML)
    app = create_app(settings, reloads=True)
    async with listening(app) as port, page_open(port, host) as page:
        assert page.headers["content-type"].startswith("text/event-stream")
        assert page.headers["cache-control"] == "no-store"
        first = app.state.current.sites.version
        assert page.states == [{"version": first, "problems": []}]

        (toml.parent / "public" / "index.html").write_text("<title>new</title>")
        await eventually(lambda: page.states[-1]["version"] != first)
        second = page.states[-1]["version"]
        assert second == app.state.current.sites.version

        toml.write_text("title = 'Bikes'\ncolour = 1")
        await eventually(lambda: page.last(problems=1))
        assert page.states[-1] == {"version": second, "problems": [f"{toml}: colour: unknown key"]}
        async with page_open(port, host) as other:  # one that comes later is told too
            assert other.states == page.states[-1:]

        toml.write_text(SITE_TOML)
        await eventually(lambda: page.last(problems=0))
        assert page.states[-1]["version"] not in (first, second)
        # A page that is gone keeps no request open: the server ends at once below.


async def test_each_kind_of_change_is_served(settings: Settings) -> None:
    sites = settings.sites_dir
    app = create_app(settings, reloads=True)

    async with running(app) as client:

        async def answers(path: str, status: int) -> None:
            async def found() -> bool:
                return (await client.get(path)).status_code == status

            await eventually(found)

        (sites / "bikes" / "public" / "_redirects").write_text("/old /new 302\n")
        await answers("/bikes/old", 302)
        (sites / "new" / "public").mkdir(parents=True)
        (sites / "new" / "site.toml").write_text('title = "New"')
        (sites / "new" / "public" / "index.html").write_text("new")
        await answers("/new/", 200)
        (sites / "new").rename(sites.parent / "gone")
        await answers("/new/", 404)
        (sites / "bikes" / "public" / "_headers").write_text("/*\n  X-Bell: ding\n")

        async def headed() -> bool:
            return bool((await client.get("/bikes/")).headers.get("x-bell") == "ding")

        await eventually(headed)
        (sites / "bikes" / "emails").mkdir()
        (sites / "bikes" / "emails" / "welcome.html").write_text("{{ site.titel }}")
        await eventually(lambda: app.state.live.wrong)
        (sites / "bikes" / "emails" / "welcome.html").unlink()
        await eventually(lambda: not app.state.live.wrong)


async def test_stream_ends_when_it_is_closed(settings: Settings) -> None:
    app = create_app(settings, reloads=True)
    async with listening(app) as port, page_open(port) as page:
        app.state.live.close()
        await eventually(lambda: page.ended)


async def test_folder_that_cannot_be_watched_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def changed() -> None:
        raise AssertionError

    async with live.watching(tmp_path / "none", Live(), changed):
        await asyncio.sleep(0.05)
    assert "reload.stopped" in capsys.readouterr().out
