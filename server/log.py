"""Logs: an event name and ids, on standard error, for people (console) or for machines (JSON lines).

Owns the set-up of structlog and of the standard library's loggers. Libraries' logs go by the latter; our own events go
past it, for a record there costs more than all the rest of a line. An address or a token never goes into a log.
"""

import logging
import re
import sys
from contextlib import suppress
from typing import Literal, TextIO

import structlog

Format = Literal["console", "json"]

_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(format: Format = "console", level: str = "info") -> None:
    """Sends every log of the process, libraries' too, to standard error in one form."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if format == "json"
        # plain_traceback: the default prints the value of every local variable too, addresses among them.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=24, exception_formatter=structlog.dev.plain_traceback
        )
    )
    tail = [structlog.processors.format_exc_info, renderer] if format == "json" else [renderer]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These tell each step of their work at INFO; what matters of it we log ourselves.
    for chatty in ("alembic", "mail.log"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # And this one warns of what a client sent: anybody could fill the log with it.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.access").addFilter(_without_secrets)
    lines = _Lines(sys.stderr)
    structlog.configure(
        processors=[*_SHARED, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *name: lines,
        cache_logger_on_first_use=False,
    )


class _Lines:
    """Writes lines to a stream. Raises nothing, like the standard library's handlers: a log that cannot be written (the
    disk is full) must not fail what it tells of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def line(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(f"{text}\n")
            self._stream.flush()

    debug = info = warning = error = critical = line


def _without_secrets(record: logging.LogRecord) -> bool:
    # A form that lacks method="post" puts what was typed into the query, and so into the access log. And who has the
    # link of a mail can do what its reader can.
    if isinstance(record.args, tuple) and len(record.args) == 5:
        client, method, target, *rest = record.args
        path = _LINK.sub(r"\1***", str(target).partition("?")[0])
        record.args = (client, method, path, *rest)
    return True


_LINK = re.compile(r"^(/+(?:confirm|unsubscribe)/).+", re.DOTALL)


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose calls are `log.info("mail.sent", outbox_id=7)`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(name)
    return logger
