"""Traces: which request, or run of a job, a step is part of, in whatever process and however much later.

Each step has a traceparent (W3C Trace Context). In it are the id of what began it all, which log lines have as
`request_id` and clients as X-Request-ID, and the place to go on from; rows of the outbox keep it. With the extra
`opentelemetry`, and an OTEL_ variable that names a collector, the collector is told of each step; without, this costs
next to nothing. A leaf. What it is given is an id or a word, never an address.
"""

import asyncio
import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import structlog

from server import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import SpanContext

Kind = Literal["internal", "server", "client"]
Fact = str | int | None

# A collector that does not answer may keep the end of the process waiting so long.
CLOSE_SECONDS = 3.0

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Span:
    """A step under way. `traceparent` names it to who goes on with it; `recorded` is OpenTelemetry's, None without."""

    __slots__ = ("recorded", "traceparent")

    def __init__(self, traceparent: str, recorded: Any = None) -> None:
        self.traceparent = traceparent
        self.recorded = recorded

    @property
    def id(self) -> str:
        """Of what began it all: 32 hexadecimal digits."""
        return self.traceparent[3:35]

    def rename(self, name: str) -> None:
        """For a step whose name is known only when it is done."""
        if self.recorded is not None:
            self.recorded.update_name(name)

    def note(self, /, **facts: Fact) -> None:
        """What is known of it by now; None is nothing."""
        if self.recorded is not None:
            self.recorded.set_attributes(_attributes(facts))

    def note_http(self, method: str, route: str | None, status: int) -> None:
        """The same of a request, by OpenTelemetry's own names. `route` is the pattern: in the path may be a token."""
        if self.recorded is not None:
            attributes = {"http.request.method": method, "http.response.status_code": status, "http.route": route}
            self.recorded.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def fail(self, why: str) -> None:
        """It did not do what it should."""
        if self.recorded is not None:
            from opentelemetry.trace import StatusCode

            self.recorded.set_status(StatusCode.ERROR, why)


_current: ContextVar[Span | None] = ContextVar("span", default=None)
_tracer: "_Tracer | None" = None


@contextmanager
def span(name: str, kind: Kind = "internal", parent: str | None = None, /, **facts: Fact) -> Iterator[Span]:
    """A step that this block is: of what `parent` (a traceparent) tells of, else of the step around it, else the first
    of something new. Every log line in the block has its `request_id`. `facts`: see `Span.note`."""
    around = _current.get()
    begun = _begin(name, kind, parent, around, facts)
    if begun is around:
        yield begun
        return
    token = _current.set(begun)
    bound = structlog.contextvars.bind_contextvars(request_id=begun.id)
    try:
        yield begun
    except BaseException as error:
        begun.fail(type(error).__name__)  # without its words, in which an address may be
        raise
    finally:
        structlog.contextvars.reset_contextvars(**bound)
        _current.reset(token)
        if begun.recorded is not None:
            begun.recorded.end()


def current() -> str | None:
    """The traceparent of the step under way, to be kept with what it causes; None outside of any."""
    step = _current.get()
    return None if step is None else step.traceparent


def request_id(traceparent: str | None) -> str | None:
    """The id in it."""
    return None if traceparent is None else traceparent[3:35]


def incoming(headers: Mapping[str, str]) -> str | None:
    """The traceparent that a request came with, where OTEL_PROPAGATORS says that such are believed."""
    return None if _tracer is None else _tracer.extract(headers)


def _begin(name: str, kind: Kind, parent: str | None, around: Span | None, facts: Mapping[str, Fact]) -> Span:
    if _tracer is not None:
        return _tracer.begin(name, kind, parent, around, facts)
    if parent is not None:
        return Span(parent)
    if around is not None:
        return around
    new = uuid.uuid4().hex
    # It has a digit that is never 0, so its first half is a span's id. 00: nobody was told of it.
    return Span(f"00-{new}-{new[:16]}-00")


def _attributes(facts: Mapping[str, Fact]) -> dict[str, str | int]:
    return {f"doorbell.{name}": fact for name, fact in facts.items() if fact is not None}


# -- OpenTelemetry -----------------------------------------------------------------------------------------------------


def open() -> str | None:
    """From now on a collector is told, if an OTEL_ variable names one; answers why it is not, though one is named."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    spoken = next(filter(None, map(os.environ.get, _PROTOCOLS)), "http/protobuf")
    if spoken != "http/protobuf":
        return f"OTEL_EXPORTER_OTLP_PROTOCOL={spoken}: only http/protobuf is spoken here"
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return "a collector is named, but the extra is not installed: pip install 'doorbell[opentelemetry]'"
    tell(BatchSpanProcessor(OTLPSpanExporter()))
    return None


def tell(processor: "SpanProcessor") -> None:
    """From now on this is told of each step. The rest, such as sampling, is as the OTEL_ variables say."""
    global _tracer
    _tracer = _Tracer(processor)


async def close() -> None:
    """Tells the last steps, if that does not take too long, and no more."""
    global _tracer
    if _tracer is not None:
        # Of its own, and a daemon: the process must not wait for a collector that hangs.
        ending = threading.Thread(target=_tracer.processor.shutdown, daemon=True)
        _tracer = None
        ending.start()
        await asyncio.to_thread(ending.join, CLOSE_SECONDS)


class _Tracer:
    """The SDK. Not the global one: what is set up here is for our own steps, and can be closed."""

    def __init__(self, processor: "SpanProcessor") -> None:
        # Imported here: it takes a tenth of a second, and most commands and installations do without.
        from opentelemetry import propagate, trace
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider

        named = Resource({"service.name": "doorbell", "service.version": __version__}).merge(
            OTELResourceDetector().detect()
        )
        provider = TracerProvider(resource=Resource.create(named.attributes), shutdown_on_exit=False)
        provider.add_span_processor(processor)
        self.processor = processor
        self._api = trace
        self._tracer = provider.get_tracer("doorbell", __version__)
        # By default OpenTelemetry believes everybody. Here anybody may post, and would choose ids and what is sampled.
        self._textmap = propagate.get_global_textmap() if os.environ.get("OTEL_PROPAGATORS") else None

    def extract(self, headers: Mapping[str, str]) -> str | None:
        if self._textmap is None:
            return None
        found = self._api.get_current_span(self._textmap.extract(headers)).get_span_context()
        return _traceparent(found) if found.is_valid else None

    def begin(self, name: str, kind: Kind, parent: str | None, around: Span | None, facts: Mapping[str, Fact]) -> Span:
        recorded = self._tracer.start_span(
            name,
            context=self._context(parent, around),
            kind=self._api.SpanKind[kind.upper()],
            attributes=_attributes(facts),
        )
        return Span(_traceparent(recorded.get_span_context()), recorded)

    def _context(self, parent: str | None, around: Span | None) -> "Context | None":
        if parent is not None:
            _, trace, step, flags = parent.split("-")
            remote = self._api.SpanContext(
                int(trace, 16), int(step, 16), is_remote=True, trace_flags=self._api.TraceFlags(int(flags, 16))
            )
            return self._api.set_span_in_context(self._api.NonRecordingSpan(remote))
        return None if around is None or around.recorded is None else self._api.set_span_in_context(around.recorded)


def _traceparent(context: "SpanContext") -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
