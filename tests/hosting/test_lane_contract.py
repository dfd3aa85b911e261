"""What lane.py takes for granted of uvicorn and httptools: an upgrade that changes it fails here, by name."""

import ast
import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httptools
import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.hosting import lane


def arguments(method: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(method).parameters)


def test_the_version_is_the_one_that_was_read() -> None:
    assert uvicorn.__version__.split(".")[:2] == ["0", "54"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("__init__", ["config", "server_state", "app_state", "_loop"]),
        ("connection_made", ["transport"]),
        ("connection_lost", ["exc"]),
        ("eof_received", []),
        ("data_received", ["data"]),
        ("on_message_begin", []),
        ("on_url", ["url"]),
        ("on_header", ["name", "value"]),
        ("on_headers_complete", []),
        ("on_body", ["body"]),
        ("on_message_complete", []),
        ("on_response_complete", []),
        ("resume_writing", []),
        ("pause_writing", []),
        ("shutdown", []),
        ("_unset_keepalive_if_required", []),
    ],
)
def test_methods(name: str, expected: list[str]) -> None:
    assert arguments(getattr(HttpToolsProtocol, name)) == ["self", *expected]


def test_no_other_methods() -> None:
    """A new one may be a new way in, past what the lane keeps in order."""
    known = {name for name in vars(HttpToolsProtocol) if not name.startswith("__")}
    assert known - {
        "_get_upgrade",
        "_should_upgrade_to_ws",
        "_should_upgrade",
        "_unsupported_upgrade_warning",
        "_start_asgi_task",
        "handle_websocket_upgrade",
        "send_400_response",
        "timeout_keep_alive_handler",
    } == {
        "connection_made",
        "connection_lost",
        "eof_received",
        "data_received",
        "on_message_begin",
        "on_url",
        "on_header",
        "on_headers_complete",
        "on_body",
        "on_message_complete",
        "on_response_complete",
        "pause_writing",
        "resume_writing",
        "shutdown",
        "_unset_keepalive_if_required",
    }


async def made() -> HttpToolsProtocol:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    config = uvicorn.Config(app, log_config=None)
    return HttpToolsProtocol(config, ServerState(), {})


async def test_attributes() -> None:
    protocol = await made()
    transport = Mock(spec=asyncio.Transport)
    transport.get_extra_info.return_value = None
    protocol.connection_made(transport)
    assert protocol.cycle is None
    assert protocol.client is None
    assert protocol.transport is transport
    assert isinstance(protocol.flow, FlowControl)
    assert not protocol.flow.read_paused
    assert not protocol.flow.write_paused
    assert len(protocol.pipeline) == 0
    assert protocol.expect_100_continue is False
    assert isinstance(protocol.access_log, bool)
    assert protocol.access_logger.name == "uvicorn.access"
    assert protocol in protocol.connections
    assert protocol.timeout_keep_alive_task is None
    assert isinstance(protocol.parser, httptools.HttpRequestParser)
    assert isinstance(protocol.loop, asyncio.AbstractEventLoop)
    assert hasattr(protocol, "ws_protocol_class")


async def test_the_scope_has_the_list_that_headers_are_put_to() -> None:
    protocol = await made()
    protocol.on_message_begin()
    assert protocol.scope["headers"] is protocol.headers
    assert protocol.headers == []
    assert protocol.url == b""


async def test_a_cycle() -> None:
    protocol = await made()
    transport = Mock(spec=asyncio.Transport)
    transport.get_extra_info.return_value = None
    protocol.connection_made(transport)
    protocol.parser.feed_data(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab")
    cycle = protocol.cycle
    assert isinstance(cycle, RequestResponseCycle)
    assert (cycle.disconnected, cycle.keep_alive, cycle.more_body) == (False, True, True)
    assert (cycle.response_started, cycle.response_complete) == (False, False)
    # Bound when the cycle is made: what a subclass does on it is done.
    assert cycle.on_response == protocol.on_response_complete
    cycle.disconnected = True
    cycle.message_event.set()
    assert await cycle.receive() == {"type": "http.disconnect"}
    transport.write.reset_mock()
    await cycle.send({"type": "http.response.start", "status": 200, "headers": []})
    transport.write.assert_not_called()
    for task in protocol.tasks:
        task.cancel()


def test_flow_control() -> None:
    assert arguments(FlowControl.__init__) == ["self", "transport"]
    for name in ("pause_reading", "resume_reading", "pause_writing", "resume_writing"):
        assert arguments(getattr(FlowControl, name)) == ["self"]


def test_every_attribute_of_uvicorns_that_is_used_is_named_here() -> None:
    """`self.x` in lane.py is the lane's own, or stands in this file too."""
    tree = ast.parse(Path(lane.__file__).read_text())
    cls = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Lane")
    own = {node.name for node in cls.body if isinstance(node, ast.FunctionDef)}
    used: set[str] = set()
    for node in ast.walk(cls):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            used.add(node.attr)
    own |= {
        target.attr
        for node in ast.walk(next(n for n in cls.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"))
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for part in (node.targets if isinstance(node, ast.Assign) else [node.target])
        for target in ast.walk(part)
        if isinstance(target, ast.Attribute)
    }
    here = Path(__file__).read_text()
    assert {name for name in used - own if f".{name}" not in here and f'"{name}"' not in here} == set()


def test_the_parser() -> None:
    """An upgrade is raised past the other errors, with the place where it begins, and the parser then reads on."""
    assert not issubclass(httptools.HttpParserUpgrade, httptools.HttpParserError)
    assert issubclass(httptools.HttpParserCallbackError, httptools.HttpParserError)

    class Seen:
        heads = 0

        def on_headers_complete(self) -> None:
            self.heads += 1

    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    request = b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    with pytest.raises(httptools.HttpParserUpgrade) as raised:
        parser.feed_data(request + b"rest")
    assert raised.value.args == (len(request),)
    parser.feed_data(b"GET / HTTP/1.1\r\n\r\n")
    assert seen.heads == 2


def test_a_callbacks_error_is_the_context_of_the_parsers() -> None:
    class Broken:
        def on_headers_complete(self) -> None:
            raise ZeroDivisionError

    parser = httptools.HttpRequestParser(Broken())
    with pytest.raises(httptools.HttpParserCallbackError) as raised:
        parser.feed_data(b"GET / HTTP/1.1\r\n\r\n")
    assert isinstance(raised.value.__context__, ZeroDivisionError)
