"""Kills the parts of deploy/compose.scale.yml in turn while visitors sign up through Caddy, and counts what is left.

Is every signup that was accepted in the database, has each of its mails arrived, and does /readyz tell what is broken
while it is? The stack has to run already, with DOORBELL_LIMITS=off; what it holds is left alone.
"""

import argparse
import json
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

COMPOSE_FILE = Path(__file__).parent.parent / "deploy" / "compose.scale.yml"
AUTHORITY = "/data/caddy/pki/authorities/local/root.crt"
WEBS = ("web-1", "web-2")
VISITORS = 4
# Between two posts of a visitor: the machine shall not be what fails.
PAUSE_SECONDS = 0.15
# How long a part is down, how long all is well before and after, and how soon /readyz must tell.
DOWN_SECONDS = 10.0
WELL_SECONDS = 11.0
TOLD_SECONDS = 8.0
# For replicas that were only just started.
START_SECONDS = 120.0
# For the last mail; a lease that a killed process left runs out within 15 seconds.
SETTLED_SECONDS = 180.0
# What one process may double when it, or its database, dies: for each connection of its pool the mail on its way, and
# four whose outcome is not written down yet.
IN_FLIGHT = 4 + 4 * 4
# The worker that is killed, and both when the database is.
MOST_DOUBLES = 3 * IN_FLIGHT

Readiness = tuple[int, dict[str, Any]]
FORMS = (
    {"site": "interior_design", "room": "Kitchen"},
    {"site": "pet_care", "pet_name": "Biscuit", "pet_kind": "Dog"},
)
KEPT = (
    "SELECT s.email, o.state, o.message_id FROM signups s JOIN outbox o ON o.signup_id = s.id WHERE s.email LIKE '%{}%'"
)


class Stack:
    """The containers, by what the compose file calls them."""

    def __init__(self, compose: list[str]) -> None:
        self._compose = [*compose, "--file", str(COMPOSE_FILE)]

    def containers(self, service: str) -> list[str]:
        return _run([*self._compose, "ps", "--quiet", service]).split()

    def address(self, container: str) -> str:
        network = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        return _run(["docker", "inspect", "--format", network, container]).split()[0]

    def readiness(self, container: str) -> Readiness | None:
        """What one process says of itself, asked as an operator; None where it does not answer."""
        try:
            answer = httpx.get(f"http://{self.address(container)}:8000/readyz", timeout=7)
            return answer.status_code, answer.json()
        except (httpx.TransportError, IndexError):
            return None

    def kept(self, run: str) -> list[list[str]]:
        """Address, state and Message-ID of each mail of this run."""
        (database,) = self.containers("postgres")
        command = ["psql", "-U", "doorbell", "-d", "doorbell", "-AtF", "\t", "-c", KEPT.format(run)]
        return [line.split("\t") for line in _run(["docker", "exec", database, *command]).splitlines()]

    def authority(self) -> ssl.SSLContext:
        """What trusts Caddy's own certificates."""
        (caddy,) = self.containers("caddy")
        return ssl.create_default_context(cadata=_run(["docker", "exec", caddy, "cat", AUTHORITY]))


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


@dataclass
class Visitors:
    """Post one after the other, whatever is up. A post without an answer is not posted again."""

    url: str
    trust: ssl.SSLContext
    run: str
    accepted: list[str] = field(default_factory=list)
    during: str = "all well"
    answers: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    slowest: float = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    def _visit(self, name: str) -> None:
        with httpx.Client(verify=self.trust, timeout=30) as client:
            number = 0
            while not self._ended.wait(PAUSE_SECONDS):
                number += 1
                self._post(client, {**FORMS[number % 2], "email": f"{name}-{number}@{name}.{self.run}.example.com"})

    def _post(self, client: httpx.Client, form: dict[str, str]) -> None:
        begun, during = time.monotonic(), self.during
        try:
            answer = str(client.post(f"{self.url}/signup", json=form).status_code)
        except httpx.TransportError as error:
            answer = type(error).__name__
        self.answers[during][answer] += 1
        self.slowest = max(self.slowest, time.monotonic() - begun)
        if answer == "202":
            self.accepted.append(form["email"])

    @contextmanager
    def posting(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._visit, args=(f"v{number}",)) for number in range(VISITORS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()


@dataclass(frozen=True, slots=True)
class Failure:
    """A part that is killed, and what each web replica that lives must say then."""

    service: str
    told: Callable[[int, dict[str, Any]], bool]


def _all_well(status: int, ready: dict[str, Any]) -> bool:
    return (status, ready["ready"], ready["database"], ready["broker"]) == (200, True, "ok", "ok")


FAILURES = (
    Failure("worker", _all_well),
    Failure("web-2", _all_well),
    Failure("rabbitmq", lambda status, ready: (status, ready["ready"]) == (200, True) and ready["broker"] != "ok"),
    Failure("postgres", lambda status, ready: (status, ready["database"]) == (503, "unavailable")),
)


def break_and_mend(stack: Stack, failure: Failure) -> str | None:
    """Kills the part, waits until that is told, and starts it again; answers what was not told."""
    killed = stack.containers(failure.service)[0]
    _run(["docker", "kill", killed])
    begun = time.monotonic()
    try:
        living = [one for name in WEBS if name != failure.service for one in stack.containers(name)]
        told = _seconds_until(lambda: _say(stack, living, failure.told), TOLD_SECONDS)
        silent = failure.service not in ("worker", "web-2") or stack.readiness(killed) is None
        time.sleep(max(0.0, DOWN_SECONDS - (time.monotonic() - begun)))
    finally:
        _run(["docker", "start", killed])
    print(f"  {failure.service}: killed; /readyz right after {_seconds(told)}", flush=True)
    return None if told is not None and silent else f"/readyz did not tell the truth without {failure.service}"


def _say(stack: Stack, containers: list[str], told: Callable[[int, dict[str, Any]], bool]) -> bool:
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(stack.readiness, containers))
    return all(answer is not None and told(*answer) for answer in answers)


def _seconds_until(found: Callable[[], bool], most: float) -> float | None:
    begun = time.monotonic()
    while not found():
        if time.monotonic() - begun > most:
            return None
        time.sleep(0.2)
    return time.monotonic() - begun


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"


def _webs(stack: Stack) -> list[str]:
    return [one for name in WEBS for one in stack.containers(name)]


def arrived(mailpit: str) -> Counter[str]:
    """How often each Message-ID is there."""
    found: Counter[str] = Counter()
    while True:
        page = httpx.get(
            f"{mailpit}/api/v1/messages", params={"start": found.total(), "limit": 1000}, timeout=60
        ).json()
        found.update(one["MessageID"] for one in page["messages"])
        if found.total() >= page["total"] or not page["messages"]:
            return found


def verdict(stack: Stack, visitors: Visitors, mailpit: str, wrong: list[str]) -> dict[str, Any]:
    """Counts what became of the signups, when nothing is pending any more, and adds to `wrong` what is."""
    waited = _seconds_until(
        lambda: all(state != "pending" for _, state, _ in stack.kept(visitors.run)), SETTLED_SECONDS
    )
    kept = stack.kept(visitors.run)
    states = Counter(state for _, state, _ in kept)
    lost = set(visitors.accepted) - {address for address, _, _ in kept}
    times = arrived(mailpit)
    sent = [message_id.strip("<>") for _, state, message_id in kept if state == "sent"]
    missing = [one for one in sent if not times[one]]
    doubles = sum(max(0, times[one] - 1) for one in sent)
    checks = {
        "mails are still pending": waited is None,
        f"{len(lost)} accepted signups are not in the database": lost,
        f"{len(missing)} mails did not arrive": missing,
        f"{doubles} doubles are more than {MOST_DOUBLES}": doubles > MOST_DOUBLES,
        f"states that nobody expects: {states}": set(states) - {"sent", "awaiting"},
        "too few signups to say anything": len(visitors.accepted) < 100,
    }
    wrong += [said for said, is_wrong in checks.items() if is_wrong]
    return {
        "answers": visitors.answers,
        "slowest_answer_seconds": round(visitors.slowest, 1),
        "accepted": len(visitors.accepted),
        "lost": len(lost),
        "mails": dict(states),
        "arrived": len(sent) - len(missing),
        "doubles": doubles,
        "settled_after_seconds": waited and round(waited, 1),
    }


def _kept_out(url: str, trust: ssl.SSLContext) -> list[str]:
    """The operator's pages that can be seen through Caddy; none should."""
    paths = ("/readyz", "/metrics", "/docs", "/openapi.json")
    return [path for path in paths if httpx.get(url + path, verify=trust, timeout=30).status_code != 403]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compose", default="docker compose", help="how compose is called here")
    parser.add_argument("--url", default="https://localhost")
    parser.add_argument("--mailpit", default="http://localhost:8025")
    options = parser.parse_args()
    stack = Stack(options.compose.split())
    if _seconds_until(lambda: _say(stack, _webs(stack), _all_well), START_SECONDS) is None:
        sys.exit("The stack is not ready: see its logs.")
    trust = stack.authority()
    wrong = [f"{path} can be seen from outside" for path in _kept_out(options.url, trust)]
    visitors = Visitors(options.url, trust, f"k{uuid.uuid4().hex[:10]}")
    with visitors.posting():
        for failure in FAILURES:
            time.sleep(WELL_SECONDS)
            visitors.during = f"without {failure.service}"
            fault = break_and_mend(stack, failure)
            visitors.during = "all well"
            wrong += [fault] if fault else []
        time.sleep(WELL_SECONDS)
    mended = _seconds_until(lambda: _say(stack, _webs(stack), _all_well), 60)
    wrong += [] if mended is not None else ["/readyz is not well in the end"]
    print(json.dumps(verdict(stack, visitors, options.mailpit, wrong), indent=2))
    print("\n".join(f"WRONG: {one}" for one in wrong) or "All accepted signups are kept, and their mails have arrived.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
