"""The OpenAPI document: that it is one, that it is true, and that the API keeps to it."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from server.app import create_app
from server.settings import Settings
from tests.conftest import REPOSITORY, alter, rows

FORM = "application/x-www-form-urlencoded"

# The app runs in a thread beside the strategies, and draws its jitter from `random`: they blame each other for it.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module:Warning")


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    """The sites of the repository: the examples are for one of them."""
    return {**environ, "DOORBELL_SITES_DIR": str(REPOSITORY / "sites"), "DOORBELL_OPS": "public"}


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


# -- the API keeps to the document ---------------------------------------------------------------------------------


@pytest.fixture
def api(settings: Settings) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(settings))


def test_document_is_valid(api: schemathesis.BaseSchema) -> None:
    api.validate()


# Not by the library's own pytest plug-in: it needs what pytest 9 no longer has.
tried = trying(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        ("/signup", "POST", GenerationMode.POSITIVE),
        ("/signup", "POST", GenerationMode.NEGATIVE),
        ("/healthz", "GET", GenerationMode.POSITIVE),
        ("/readyz", "GET", GenerationMode.POSITIVE),
    ],
)
def test_api_keeps_to_the_document(api: schemathesis.BaseSchema, path: str, method: str, mode: GenerationMode) -> None:
    @tried
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    def keeps_to_it(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate()

    keeps_to_it()


def test_api_keeps_to_the_document_for_a_site_that_is_there(api: schemathesis.BaseSchema, settings: Settings) -> None:
    @tried
    @given(case=api["/signup"]["POST"].as_strategy())
    def keeps_to_it(case: schemathesis.Case[Any]) -> None:
        assert isinstance(case.body, dict)
        case.body |= {"site": "pet_care", "pet_name": "Biscuit", "pet_kind": "Dog"}
        # A site may ask more of its fields than the document can know.
        case.call_and_validate(excluded_checks=[positive_data_acceptance, negative_data_rejection])

    keeps_to_it()
    assert rows(settings, "SELECT count(*) > 0 FROM signups") == [(1,)]


# Each with what is there: a site, and a token of a link for that purpose.
BY_TOKEN = {
    "/_doorbell/token/{slug}": ["get"],
    "/_doorbell/challenge/{slug}": ["get"],
    "/confirm/{token}": ["get", "post"],
    "/unsubscribe/{token}": ["get", "post"],
}


def test_links_and_tokens_keep_to_the_document(settings: Settings) -> None:
    app = create_app(settings)
    api = schemathesis.openapi.from_asgi("/openapi.json", app)
    keys = app.state.keys
    real = {
        "slug": {"pet_care"},
        "token": {keys.stamp("confirm", "0" * 29), keys.sign("unsubscribe", f"pet_care.{'0' * 64}")},
    }

    def keeps_to_it(path: str, method: str) -> None:
        @trying(tried, max_examples=15)
        @given(case=api[path][method].as_strategy(generation_mode=GenerationMode.POSITIVE))
        def for_any(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate()

        for_any()
        for name, values in real.items():
            for value in values if f"{{{name}}}" in path else ():
                api[path][method].Case(path_parameters={name: value}).call_and_validate()

    for path, methods in BY_TOKEN.items():
        for method in methods:
            keeps_to_it(path, method.upper())


def test_every_operation_is_tried(api: schemathesis.BaseSchema) -> None:
    others = {"/signup": ["post"], "/healthz": ["get"], "/readyz": ["get"]}
    assert {path: sorted(api[path]) for path in api} == {**others, **BY_TOKEN}


# -- the examples are true -----------------------------------------------------------------------------------------


def example(document: dict[str, Any], status: int) -> Any:
    content = document["paths"]["/signup"]["post"]["responses"][str(status)]["content"]
    return next(iter(content.values()))["example"]


async def test_example_of_each_type_is_accepted(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    content = document["paths"]["/signup"]["post"]["requestBody"]["content"]
    assert sorted(content) == ["application/json", FORM, "multipart/form-data"]
    json_answer = await client.post("/signup", json=content["application/json"]["example"])
    assert (json_answer.status_code, json_answer.json()) == (202, example(document, 202))
    form_answer = await client.post("/signup", data=content[FORM]["example"])
    assert (form_answer.status_code, form_answer.headers["location"]) == (303, "/pet_care/thank-you/")
    files = {name: (None, value) for name, value in content["multipart/form-data"]["example"].items()}
    assert (await client.post("/signup", files=files)).status_code == 303


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (400, "application/json", "{"),
        (404, "application/json", '{"site": "none"}'),
        (413, "application/json", " " * 70_000),
        (415, "text/plain", ""),
        (422, "application/json", '{"site": "pet_care", "pet_name": "Biscuit", "pet_kind": "Dog"}'),
    ],
)
async def test_example_of_each_error_is_what_is_answered(
    client: httpx.AsyncClient, document: dict[str, Any], status: int, content_type: str, body: str
) -> None:
    answer = await client.post("/signup", content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()) == (status, example(document, status))


async def test_example_of_a_database_that_is_away_is_what_is_answered(
    client: httpx.AsyncClient, document: dict[str, Any], settings: Settings
) -> None:
    await alter(settings, "ALTER TABLE signups RENAME TO away")
    content = document["paths"]["/signup"]["post"]["requestBody"]["content"]
    answer = await client.post("/signup", json=content["application/json"]["example"])
    assert (answer.status_code, answer.json()) == (503, example(document, 503))


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named == set(schemas)


@pytest.mark.parametrize("status", [400, 403, 404, 413, 415, 422, 429, 503])
async def test_example_of_each_error_fits_its_schema(document: dict[str, Any], status: int) -> None:
    content = document["paths"]["/signup"]["post"]["responses"][str(status)]["content"]["application/problem+json"]
    jsonschema_rs.validate(content["schema"], content["example"])
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(content["schema"], {**content["example"], "errors": "none"})


async def test_document_hides_what_is_no_api(document: dict[str, Any]) -> None:
    assert sorted(document["paths"]) == sorted(["/healthz", "/readyz", "/signup", *BY_TOKEN])
    assert "HTTPValidationError" not in json.dumps(document)


# -- /docs ---------------------------------------------------------------------------------------------------------


class Assets(HTMLParser):
    """What a page loads, and whether it has script or style of its own."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and value:
                self.loads.append(value)
            if name.startswith("on") or name == "style":
                self.inline.append(f"{tag} {name}")
        self._in_script = tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip():
            self.inline.append(data)


async def test_docs_load_nothing_from_elsewhere_and_run_nothing_inline(client: httpx.AsyncClient) -> None:
    answer = await client.get("/docs")
    page = Assets(answer.text)
    assert answer.status_code == 200
    assert page.inline == []
    assert len(page.loads) >= 3
    for url in page.loads:
        assert url.startswith("/_doorbell/")
        assert (await client.get(url)).status_code == 200, url
    script = (await client.get("/_doorbell/docs.js")).text
    assert 'url: "/openapi.json"' in script and "http" not in script


async def test_docs_policy_forbids_inline_script_and_other_hosts(client: httpx.AsyncClient) -> None:
    policy = (await client.get("/docs")).headers["content-security-policy"]
    directives = {name: values for name, *values in (part.split() for part in policy.split(";"))}
    assert directives["default-src"] == ["'self'"]
    assert "script-src" not in directives and "script-src-elem" not in directives
    assert directives["object-src"] == directives["base-uri"] == ["'none'"]
    assert "unsafe-eval" not in policy and "http" not in policy
    # only what Swagger UI sets on elements as it draws
    assert [name for name, values in directives.items() if "'unsafe-inline'" in values] == ["style-src-attr"]


async def test_docs_need_no_slash_and_have_no_other_way_in(client: httpx.AsyncClient) -> None:
    assert (await client.get("/docs/")).status_code == 404
    assert (await client.get("/redoc")).status_code == 404
    assert (await client.get("/_doorbell/docs/")).status_code == 404
