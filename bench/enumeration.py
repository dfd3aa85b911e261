"""Does the time of an answer tell whether an address is known? `python -m bench.enumeration [--count 2000]`

Posts of new, unconfirmed, confirmed and unsubscribed addresses, in turns and in a new order each turn, to one server.
For each kind against the new: the chance that one of it takes longer than a new one (0.5: nobody can tell), and the
p-value of the rank test of Mann and Whitney, by its normal approximation.
"""

import argparse
import json
import os
import random
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from http.client import HTTPConnection
from math import erfc, sqrt
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.peers import ROOT
from bench.process import cores, free_port, running

KINDS = ("new", "unconfirmed", "confirmed", "unsubscribed")
SITE = """title = "Enumeration"
[mail]
from = "site@here.example"
notify = ["owner@here.example"]
[signup]
client_limit = "1000000 per hour"
site_limit = "1000000 per hour"
"""


def rank_test(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """The chance that a value of `one` is above one of `other`, and the p-value that it is 0.5."""
    # Two values are never the same: they have nanoseconds.
    ranked = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks = sum(rank for rank, (_, which) in enumerate(ranked, 1) if which == 0)
    n, m = len(one), len(other)
    u = ranks - n * (n + 1) / 2
    z = (u - n * m / 2) / sqrt(n * m * (n + m + 1) / 12)
    return u / (n * m), erfc(abs(z) / sqrt(2))


def _address(kind: str, number: int) -> str:
    return f"{kind}-{number}@visitor.example"


def _token(connection: HTTPConnection) -> str:
    """As a page has it; without one, limits are met soon."""
    connection.request("GET", "/_doorbell/token/bench")
    token = str(json.load(connection.getresponse())["token"])
    time.sleep(2.1)  # what comes sooner is taken for spam
    return token


def _post(connection: HTTPConnection, token: str, email: str) -> float:
    body = f'{{"site":"bench","email":"{email}","_token":"{token}"}}'.encode()
    begun = time.perf_counter()
    connection.request("POST", "/signup", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    took = time.perf_counter() - begun
    if answer.status != 202:
        raise SystemExit(f"answered {answer.status}")
    return took


def _prepare(file: Path) -> None:
    with closing(sqlite3.connect(file, timeout=60)) as database:
        database.execute("UPDATE signups SET status = 'confirmed' WHERE email LIKE 'confirmed-%'")
        database.execute(
            "INSERT INTO suppressions SELECT recipient_hash, 'bench', 'unsubscribed', NULL, 0 FROM signups"
            " WHERE email LIKE 'unsubscribed-%'"
        )
        database.execute("DELETE FROM counters")
        database.commit()


def measure(count: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of each post, by kind."""
    (folder / "sites" / "bench" / "public").mkdir(parents=True)
    (folder / "sites" / "bench" / "public" / "index.html").write_text("<!doctype html><title>x</title>")
    (folder / "sites" / "bench" / "site.toml").write_text(SITE)
    port = free_port()
    own = {"SITES_DIR": str(folder / "sites"), "DATA_DIR": str(folder / "var"), "PORT": str(port)}
    # Nothing listens there: mail waits, and none is on its way to disturb.
    own |= {"SMTP_URL": "smtp://127.0.0.1:1", "LOG_LEVEL": "warning"}
    usual = {name: value for name, value in os.environ.items() if not name.startswith("DOORBELL_")}
    environment = usual | {f"DOORBELL_{name}": value for name, value in own.items()}
    command = [sys.executable, "-m", "server", "serve"]
    server_core, _ = cores()
    log = folder / "server.log"
    took: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with running("doorbell", command, environment=environment, folder=ROOT, core=server_core, log=log) as process:
        process.wait_for(port)
        connection = HTTPConnection("127.0.0.1", port)
        token = _token(connection)
        for kind in KINDS[1:]:
            for number in range(count):
                _post(connection, token, _address(kind, number))
        _prepare(folder / "var" / "doorbell.db")
        for number in range(count):
            for kind in random.sample(KINDS, len(KINDS)):
                took[kind].append(_post(connection, token, _address(kind, number)))
    return took


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=2000, help="posts of each kind")
    count = parser.parse_args().count
    with TemporaryDirectory() as folder:
        took = measure(count, Path(folder))
    print(f"| {count} posts each | median ms | longer than a new one | p |\n|---|---|---|---|")
    for kind, values in took.items():
        chance, p = rank_test(values, took["new"])
        print(f"| {kind} | {median(values) * 1000:.3f} | {chance:.3f} | {p:.3f} |")


if __name__ == "__main__":
    _main()
