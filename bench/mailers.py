"""What sends the mails in the mail bench: how each is started, and why one cannot be."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import outbox, relay
from bench.peers import ROOT, Launch, no_module, program

CONNECTIONS = 8
_NODE = Path(__file__).parent / "senders" / "nodemailer"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be sent, and from where: the database with the rows where the mailer has such, and the letter."""

    port: int
    count: int
    rows: Path | None
    letter: Path


@dataclass(frozen=True, slots=True)
class Mailer:
    """A program that sends. `missing` says why it cannot be run here, or is empty. `has_rows`: it sends what is in an
    outbox, and settles it there. `warms`: it sends some before its time is taken."""

    key: str
    title: str
    launch: Callable[[Order], Launch]
    missing: str = ""
    has_rows: bool = False
    warms: bool = False

    def before(self, count: int) -> int:
        """How many mails it sends beside those that are timed."""
        return _before(count) if self.warms else 0


def _before(count: int) -> int:
    return min(count // 4, 1000)


def _python(module: str, connections: int = CONNECTIONS) -> Callable[[Order], Launch]:
    def launch(order: Order) -> Launch:
        return Launch(_command(module, order, connections))

    return launch


def _command(module: str, order: Order, connections: int) -> list[str]:
    return [sys.executable, "-m", f"bench.senders.{module}", str(order.port), str(order.count), str(connections)]


def _doorbell(connections: int, level: str = "warning") -> Callable[[Order], Launch]:
    def launch(order: Order) -> Launch:
        return Launch([*_command("doorbell", order, connections), str(order.rows), level])

    return launch


def _nodemailer(max_messages: str) -> Callable[[Order], Launch]:
    def launch(order: Order) -> Launch:
        script = str(_NODE / "send.mjs")
        numbers = [str(order.port), str(order.count), str(CONNECTIONS)]
        more = [str(order.letter), max_messages, str(_before(order.count))]
        return Launch([program("node") or "node", script, *numbers, *more])

    return launch


def _no_nodemailer() -> str:
    if not program("node"):
        return "no program node: apt install nodejs npm, or from nodejs.org"
    if not (_NODE / "node_modules" / "nodemailer").is_dir():
        return f"not installed: npm ci --prefix {_NODE.relative_to(ROOT)}"
    return ""


def nodemailer_version() -> dict[str, str]:
    """What is pinned, by name."""
    lock = json.loads((_NODE / "package-lock.json").read_text())
    return {"nodemailer": lock["packages"]["node_modules/nodemailer"]["version"]}


def every() -> list[Mailer]:
    """All of them, in the order of the tables."""
    size, node = outbox.DEFAULT_SIZE, _no_nodemailer()
    source = "" if program("smtp-source") else relay.MISSING.replace("smtp-sink", "smtp-source")
    return [
        Mailer("doorbell", "Doorbell", _doorbell(CONNECTIONS), has_rows=True),
        Mailer("doorbell-log", "Doorbell, a log line each", _doorbell(CONNECTIONS, "info"), has_rows=True),
        Mailer("doorbell-pool", f"Doorbell, its default of {size} connections", _doorbell(size), has_rows=True),
        Mailer("nodemailer", "Nodemailer, pooled", _nodemailer("Infinity"), node, warms=True),
        Mailer("nodemailer-100", "Nodemailer, 100 mails a connection", _nodemailer("100"), node, warms=True),
        Mailer("fastapi-mail", "fastapi-mail", _python("fast_mail"), no_module("fastapi_mail")),
        Mailer("aiosmtplib", "aiosmtplib, a connection each", _python("a_connection_each")),
        Mailer("ready", "aiosmtplib, kept connections, ready bytes", _python("ready_bytes")),
        Mailer("source", "smtp-source", _python("smtp_source"), source),
    ]
