"""One signup, followed from its request to the relay's reply: through a kill, in the log and at a collector."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.e2e.conftest import ForkedServer, Server, wait_until
from tests.e2e.relay import Gate, Place, placed
from tests.smtpd import Smtpd, reply

pytestmark = pytest.mark.e2e


class Collector:
    """Takes what is posted to it by OTLP over HTTP."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, bytes]] = []
        self.port = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        posts = self.posts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                posts.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.port = server.server_port
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()

    def requests(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for _, body in list(self.posts)]

    def spans(self, name: str) -> list[Span]:
        """Those of this name that came so far."""
        scopes = (scope for one in self.requests() for resource in one.resource_spans for scope in resource.scope_spans)
        return [span for scope in scopes for span in scope.spans if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    with collector.listening():
        yield collector


@pytest.fixture
def place(tmp_path: Path, keeps: dict[str, str]) -> Iterator[Place]:
    with placed(tmp_path, Smtpd(), **keeps, LOG_FORMAT="json") as place:
        yield place


def process(place: Place, name: str, **environ: str) -> ForkedServer:
    """One more process with the data of this place."""
    return ForkedServer({**place.environ, **environ}, place.server.data.parent / f"{name}.log")


def lines(server: Server, prefix: str) -> list[dict[str, Any]]:
    """What this process has logged, of events that begin so."""
    said = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    return [line for line in said if line["event"].startswith(prefix)]


def killed_and_inherited(place: Place, first: Server, heir: Server, told: Callable[[], bool]) -> str:
    """Somebody signs up, the first process is killed in the middle of the mails once that was `told`, and the heir
    sends them; answers the id that the visitor got."""
    gate = Gate(reply(250, "ok"))
    rule = place.smtpd.on("rcpt", gate)
    first.start()
    answer = first.sign_up("marker-7c1@example.com", name="Marker Name")
    assert answer.status_code == 202
    wait_until(lambda: gate.stopped == 2 and told())
    first.kill()
    place.smtpd.rules.remove(rule)
    gate.open()
    place.end_leases()
    place.smtpd.on("rcpt", reply(451, "4.3.0 later, marker-7c1@example.com"), times=1)
    heir.start()
    wait_until(lambda: len(lines(heir, "mail.")) == 2)
    return answer.headers["x-request-id"]


def test_every_line_of_a_signup_has_its_id_in_whatever_process(place: Place) -> None:
    first, heir = process(place, "first"), process(place, "heir")
    try:
        id = killed_and_inherited(place, first, heir, lambda: bool(lines(first, "signup.accepted")))
        assert heir.end() == 0
    finally:
        first.kill()
        heir.kill()
    [accepted] = lines(first, "signup.")
    assert (accepted["event"], accepted["request_id"]) == ("signup.accepted", id)
    mails = {line["event"]: line for line in lines(heir, "mail.")}
    assert {event: (line["request_id"], line["signup_id"], line["code"]) for event, line in mails.items()} == {
        "mail.deferred": (id, accepted["signup_id"], 451),
        "mail.sent": (id, accepted["signup_id"], 250),
    }
    assert "marker" not in (first.log + heir.log).lower()


def test_signup_is_one_trace_in_whatever_process(place: Place, collector: Collector) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "NO_PROXY": "127.0.0.1",
        # FastAPI would tell a collector what is in paths, and the words of errors.
        "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
    }
    first, heir = process(place, "first", **variables), process(place, "heir", **variables)
    try:
        id = killed_and_inherited(place, first, heir, lambda: bool(collector.spans("POST /signup")))
        assert heir.end() == 0  # what was not told yet is told now
    finally:
        first.kill()
        heir.kill()
    [request] = collector.spans("POST /signup")
    [register] = collector.spans("signup.register")
    sends = collector.spans("mail.send")  # those that were killed never ended
    assert {span.trace_id.hex() for span in (request, register, *sends)} == {id}
    assert (request.parent_span_id, register.parent_span_id) == (b"", request.span_id)
    assert {span.parent_span_id for span in sends} == {register.span_id}
    told = [{one.key: one.value.string_value or one.value.int_value for one in span.attributes} for span in sends]
    [line] = lines(heir, "mail.sent")
    outcomes = {one["doorbell.outcome"]: (one["doorbell.smtp_code"], one["doorbell.signup_id"]) for one in told}
    assert outcomes == {"deferred": (451, line["signup_id"]), "sent": (250, line["signup_id"])}
    assert sorted(span.status.code for span in sends) == [Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR]
    [service] = {
        one.value.string_value
        for message in collector.requests()
        for resource in message.resource_spans
        for one in resource.resource.attributes
        if one.key == "service.name"
    }
    assert service == "doorbell"
    assert {path for path, _ in collector.posts} == {"/v1/traces"}
    everything = b"".join(body for _, body in collector.posts).lower()
    assert b"marker" not in everything and b"example" not in everything
