"""A step knows what it is part of; a collector is told of it where one is named, and of no address."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import httpx
import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_trace_id

from server import tracing
from server.app import create_app
from server.settings import Settings
from tests.conftest import REPOSITORY, eventually, rows, running
from tests.provision import furnish

GOOD = {"site": "bikes", "email": "marker-7c1@example.com", "name": "Marker Name", "colour": "Red"}
FOREIGN = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*tracing._ENDPOINTS, *tracing._PROTOCOLS, "OTEL_PROPAGATORS", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def told() -> AsyncIterator[InMemorySpanExporter]:
    """What a collector would be told."""
    exporter = InMemorySpanExporter()
    tracing.tell(SimpleSpanProcessor(exporter))
    yield exporter
    await tracing.close()


def request_id() -> object:
    return structlog.contextvars.get_contextvars().get("request_id")


def is_traceparent(text: str) -> bool:
    version, trace, step, flags = text.split("-")
    lengths = (len(version), len(trace), len(step), len(flags))
    return lengths == (2, 32, 16, 2) and int(trace, 16) > 0 and int(step, 16) > 0


# -- without a collector -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", [False, True])
def test_step_has_the_id_of_what_began_it(on: bool, request: pytest.FixtureRequest) -> None:
    if on:
        request.getfixturevalue("told")
    assert (tracing.current(), request_id()) == (None, None)
    with tracing.span("first") as first:
        assert is_traceparent(first.traceparent)
        assert (tracing.current(), request_id()) == (first.traceparent, first.id)
        with tracing.span("second") as second:
            assert (second.id, request_id()) == (first.id, first.id)
        with tracing.span("of another", "internal", FOREIGN) as other:
            assert (other.id, request_id()) == ("c" * 32, "c" * 32)
        assert (tracing.current(), request_id()) == (first.traceparent, first.id)
    assert (tracing.current(), request_id()) == (None, None)
    with tracing.span("next") as following:
        assert following.id != first.id


def test_step_that_fails_leaves_nothing_behind() -> None:
    with pytest.raises(ValueError, match="boom"), tracing.span("first"):
        raise ValueError("boom")
    assert (tracing.current(), request_id()) == (None, None)


def test_without_a_collector_a_traceparent_of_a_client_is_not_believed() -> None:
    assert tracing.incoming({"traceparent": FOREIGN}) is None


# -- set-up ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def closed() -> AsyncIterator[None]:
    yield
    await tracing.close()


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
async def test_variables_of_opentelemetry_switch_it_on(
    variables: dict[str, str], on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.open() is None
    with tracing.span("first") as span:
        assert (span.recorded is not None) is on


async def test_protocol_that_is_not_spoken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in str(tracing.open())
    with tracing.span("first") as span:
        assert span.recorded is None


def test_without_the_extra_all_works_and_the_start_says_what_is_missing() -> None:
    program = """
import sys
sys.modules["opentelemetry.sdk"] = None  # as where it is not installed
from server import cli, tracing
print(tracing.open())
with tracing.span("first") as span:
    span.note(site="bikes")
    span.fail("no")
print(span.id == tracing.request_id(span.traceparent))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "the extra is not installed" in ran.stdout and ran.stdout.endswith("True\n")


def test_program_loads_nothing_of_it_where_it_is_not_asked_for() -> None:
    program = "import sys, server.cli; print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "[]\n"


# -- what a collector is told ------------------------------------------------------------------------------------------


def test_step_is_a_child_of_the_one_around_it_or_of_the_one_it_goes_on_from(told: InMemorySpanExporter) -> None:
    with tracing.span("first") as first, tracing.span("second"):
        pass
    with tracing.span("later", "client", first.traceparent):
        pass
    second, one, later = told.get_finished_spans()
    assert [span.name for span in (one, second, later)] == ["first", "second", "later"]
    assert one.parent is None
    for child, elsewhere in ((second, False), (later, True)):
        assert child.parent is not None and child.parent.span_id == one.context.span_id
        assert (child.parent.is_remote, child.context.trace_id) == (elsewhere, one.context.trace_id)


def test_step_that_fails_is_told_without_its_words(told: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="marker"), tracing.span("first"):
        raise ValueError("no such address: marker-7c1@example.com")
    [span] = told.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")
    assert "marker" not in span.to_json()


def test_what_is_not_sampled_goes_on_under_its_id_and_is_not_told(told: InMemorySpanExporter) -> None:
    with tracing.span("later", "client", FOREIGN[:-2] + "00") as span:
        assert span.id == "c" * 32 and span.traceparent.endswith("-00")
    assert told.get_finished_spans() == ()


def test_client_is_believed_only_where_the_variable_says_so(
    told: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracing.incoming({"traceparent": FOREIGN}) is None
    monkeypatch.setenv("OTEL_PROPAGATORS", "tracecontext")
    tracing.tell(SimpleSpanProcessor(told))
    assert tracing.incoming({"traceparent": FOREIGN}) == FOREIGN
    for wrong in ("", "00-" + "0" * 32 + "-" + "d" * 16 + "-01", "a@example.com", FOREIGN[:-1], "x" * 9000):
        assert tracing.incoming({"traceparent": wrong}) is None
    assert tracing.incoming({}) is None


async def spans(told: InMemorySpanExporter, count: int) -> dict[str, list[ReadableSpan]]:
    """Those of a signup, by name, once there are so many."""

    def found() -> list[ReadableSpan]:
        return [span for span in told.get_finished_spans() if not span.name.startswith("job ")]

    await eventually(lambda: len(found()) == count)
    by_name: dict[str, list[ReadableSpan]] = {}
    for span in found():
        by_name.setdefault(span.name, []).append(span)
    return by_name


def facts(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


async def test_signup_is_one_trace_to_the_reply_of_the_relay(told: InMemorySpanExporter, settings: Settings) -> None:
    furnish(settings.data_dir)
    async with running(create_app(settings)) as client:
        answer = await client.post("/signup", json=GOOD, headers={"traceparent": FOREIGN})
        found = await spans(told, 4)
    [request], [register], sent = found["POST /signup"], found["signup.register"], found["mail.send"]
    id = answer.headers["x-request-id"]
    assert {format_trace_id(span.context.trace_id) for span in (request, register, *sent)} == {id}
    assert request.parent is None and register.parent == request.context
    assert {span.parent and span.parent.span_id for span in sent} == {register.context.span_id}
    assert [span.kind for span in (request, register, *sent)] == [
        SpanKind.SERVER,
        SpanKind.INTERNAL,
        SpanKind.CLIENT,
        SpanKind.CLIENT,
    ]
    assert facts(request) == {
        "http.request.method": "POST",
        "http.response.status_code": 202,
        "http.route": "/signup",
    }
    assert facts(register) == {"doorbell.site": "bikes", "doorbell.signup_id": 1}
    assert sorted((facts(span) for span in sent), key=str) == sorted(
        (
            {
                "doorbell.outbox_id": number,
                "doorbell.signup_id": 1,
                "doorbell.site": "bikes",
                "doorbell.kind": kind,
                "doorbell.attempt": 1,
                "doorbell.outcome": "sent",
                "doorbell.smtp_code": 250,
            }
            for number, kind in ((1, "welcome"), (2, "notice"))
        ),
        key=str,
    )
    assert rows(settings, "SELECT DISTINCT substr(trace, 4, 32) FROM outbox") == [(id,)]
    everything = "".join(span.to_json() for span in told.get_finished_spans())
    assert "marker" not in everything.lower() and "@" not in everything


async def test_token_of_a_link_is_in_no_span_nor_what_a_client_calls_its_method(
    told: InMemorySpanExporter, settings: Settings
) -> None:
    furnish(settings.data_dir)
    async with running(create_app(settings)) as client:
        assert (await client.get("/confirm/marker-7c1?marker=1")).status_code == 404
        assert (await client.request("MARKER", "/signup")).status_code == 405
        assert (await client.get("/_doorbell/marker-7c1")).status_code == 404
        found = await spans(told, 3)
    assert set(found) == {"GET /confirm/{token}", "_OTHER /signup", "GET"}
    assert "marker" not in "".join(span.to_json() for spans in found.values() for span in spans).lower()


async def test_fault_is_an_error_in_the_span(told: InMemorySpanExporter, settings: Settings) -> None:
    furnish(settings.data_dir)
    app = create_app(settings)

    @app.get("/boom")
    async def boom() -> None:
        raise ValueError("marker")

    async with running(app) as client:
        assert (await client.get("/boom")).status_code == 500
        found = await spans(told, 1)
    [span] = found["GET /boom"]
    assert (span.status.status_code, facts(span)["http.response.status_code"]) == (StatusCode.ERROR, 500)
    assert "marker" not in span.to_json()


async def test_collector_that_is_away_delays_nothing_but_the_end_a_little(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(tracing, "CLOSE_SECONDS", 0.2)
    furnish(settings.data_dir)
    async with asyncio.timeout(60), running(create_app(settings)) as client:
        answer: httpx.Response = await client.post("/signup", json=GOOD)
        assert answer.status_code == 202
        await eventually(lambda: rows(settings, "SELECT count(*) FROM outbox WHERE state = 'sent'") == [(2,)])
