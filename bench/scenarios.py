"""What is asked for, and the cells of the table: a scenario and a server that gives the right answer to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench import material
from bench.peers import Peer
from bench.process import Process
from bench.wire import Answer, WrongAnswer, check, fetch
from bench.wrk import Load

RANGE = (1_000_000, 1_001_023)
_ENCODINGS = {"Accept-Encoding": "gzip, deflate, br, zstd"}
# What Chromium sends with a click on a link within a site, beside Host.
_BROWSER = {
    "Connection": "keep-alive",
    "sec-ch-ua": '"Chromium";v="142", "Not_A Brand";v="99"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Linux"',
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/142.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-User": "?1",
    "Sec-Fetch-Dest": "document",
    "Referer": "http://127.0.0.1/bench/",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
}
_CONSTANT = frozenset({"bare", "bare-2"})


@dataclass(frozen=True, slots=True)
class Scenario:
    """A request. `only` are the servers that get it, all but the constant ones where it is empty.

    `script` are arguments to wrk.lua.
    """

    key: str
    title: str
    file: str
    fields: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    only: frozenset[str] = frozenset()
    left_out: frozenset[str] = _CONSTANT
    script: tuple[str, ...] = ()

    def asks(self, server: str) -> bool:
        """Whether `server` takes part."""
        return server in self.only if self.only else server not in self.left_out


_RARE = _CONSTANT | {"lane-log"}
SCENARIOS = (
    Scenario("page", "12 KB page", "page.html", left_out=frozenset()),
    Scenario("negotiated", "12 KB, negotiated", "page.html", _ENCODINGS),
    Scenario("browser", "12 KB, browser", "page.html", _BROWSER, only=frozenset({"lane", "lane-log", "nginx"})),
    Scenario(
        "visitors",
        "12 KB, browser, a cookie each",
        "page.html",
        _BROWSER,
        only=frozenset({"lane", "nginx"}),
        script=("visitors",),
    ),
    Scenario("304", "12 KB, 304", "page.html", {"If-None-Match": ""}, 304),
    Scenario("image", "80 KB image", "photo.jpg", left_out=_RARE),
    Scenario("film", "5 MB file", "film.mp4", left_out=_RARE),
    Scenario("range", "1 KB of 5 MB", "film.mp4", {"Range": f"bytes={RANGE[0]}-{RANGE[1]}"}, 206, left_out=_RARE),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of the table, ready to be measured. `coding` is the encoding that the server chose."""

    scenario: str
    server: str
    process: Process
    load: Load
    coding: str = "identity"
    body: int = 0


def cell(scenario: Scenario, peer: Peer, process: Process, port: int) -> Cell:
    """Asks once, looks closely, and says what wrk has to do. Raises WrongAnswer when the answer is wrong."""
    content = material.main_files()[scenario.file]
    target = _target(scenario, peer, port)
    fields = dict(scenario.fields)
    if "If-None-Match" in fields:
        fields["If-None-Match"] = _etag(fetch(port, target, {}))
    expected = {200: content, 206: content[RANGE[0] : RANGE[1] + 1], 304: b""}[scenario.status]
    encoded = "Accept-Encoding" in fields and peer.compresses
    answer = fetch(port, target, fields)
    check(answer, status=scenario.status, content=expected, encoded=encoded)
    if scenario.status == 206:
        _check_range(answer, len(content))
    coding = answer.fields.get("content-encoding", "identity")
    return Cell(
        scenario.key,
        peer.key,
        process,
        Load(port, target, fields, answer.size, scenario.script),
        coding,
        len(answer.body),
    )


def _target(scenario: Scenario, peer: Peer, port: int) -> str:
    plain = f"/bench/{scenario.file}"
    clean = plain.removesuffix(".html")
    # Each server gets the spelling that it answers itself: one redirects what the others have as a file.
    return clean if peer.clean and clean != plain and fetch(port, clean, {}).status == 200 else plain


def _etag(answer: Answer) -> str:
    if not (etag := answer.fields.get("etag", "")):
        raise WrongAnswer("has no ETag")
    return etag


def _check_range(answer: Answer, total: int) -> None:
    if (found := answer.fields.get("content-range")) != f"bytes {RANGE[0]}-{RANGE[1]}/{total}":
        raise WrongAnswer(f"says Content-Range: {found}")
