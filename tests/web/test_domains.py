"""The whole program on a site's own domain: the site at its root, the public API, and nothing of the operator's."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from server.app import create_app
from server.settings import load
from tests.conftest import add_site, running

LAMPS = 'title = "Lamps"\nhosts = ["lamps.example", "www.lamps.example"]\n[signup]\nthanks = "danke/"\n'
OWN = {"host": "lamps.example"}
FORM = {"site": "lamps", "email": "a@example.com"}


@pytest.fixture
def sites(sites: Path) -> Path:
    add_site(sites, "lamps", LAMPS, {"danke/index.html": "Thanks", "404.html": '<a href="./">No lamp here</a>'})
    return sites


@pytest.fixture
async def client(environ: dict[str, str], sites: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(load(environ, env_file=None))
    async with running(app) as client:
        yield client


@pytest.mark.parametrize("host", ["lamps.example", "www.lamps.example", "LAMPS.example:8000", "lamps.example."])
async def test_site_is_at_the_root_of_its_domains(client: httpx.AsyncClient, host: str) -> None:
    answer = await client.get("/", headers={"host": host})
    assert (answer.status_code, answer.text) == (200, "<!doctype html><title>lamps</title>")


async def test_elsewhere_it_stays_at_its_path(client: httpx.AsyncClient) -> None:
    assert (await client.get("/lamps/danke/")).text == "Thanks"
    assert (await client.get("/lamps/danke/", headers={"host": "other.example"})).text == "Thanks"
    assert "Lamps" in (await client.get("/", headers={"host": "other.example"})).text


@pytest.mark.parametrize(
    "path", ["/readyz", "/docs", "/openapi.json", "/metrics", "/_mailbox/", "/_mailbox", "/bikes/"]
)
async def test_on_its_domain_the_rest_is_not_there(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers=OWN)
    assert (answer.status_code, answer.text) == (404, '<a href="/">No lamp here</a>')


@pytest.mark.parametrize(
    "path", ["/healthz", "/thanks/lamps", "/_doorbell/form.js", "/_doorbell/token/lamps", "/_doorbell/challenge/lamps"]
)
async def test_on_its_domain_the_public_api_answers(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path, headers=OWN)).status_code == 200


@pytest.mark.parametrize(("headers", "location"), [(OWN, "/danke/"), ({}, "/lamps/danke/")])
async def test_form_leads_to_the_thank_you_page_where_it_is(
    client: httpx.AsyncClient, headers: dict[str, str], location: str
) -> None:
    answer = await client.post("/signup", data=FORM, headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (303, location)
    assert (await client.get(location, headers=headers)).text == "Thanks"


@pytest.mark.parametrize(("headers", "home"), [(OWN, "/"), ({}, "/lamps/")])
async def test_pages_about_a_site_lead_back_to_it(
    client: httpx.AsyncClient, headers: dict[str, str], home: str
) -> None:
    assert f'href="{home}"' in (await client.get("/thanks/lamps", headers=headers)).text
    again = await client.post("/signup", data={**FORM, "email": "nobody"}, headers=headers)
    assert (again.status_code, f'<a href="{home}">' in again.text) == (422, True)
