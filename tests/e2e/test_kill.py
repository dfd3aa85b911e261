"""SIGKILL at each instant of a mail's way: nothing is lost, and exactly what the relay had taken comes twice."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.conftest import wait_until
from tests.e2e.relay import CONNECTIONS, Gate, Place, placed
from tests.smtpd import Act, Session, Smtpd, accept, nothing, reply

pytestmark = [pytest.mark.e2e, pytest.mark.soak]


@pytest.fixture(scope="module", params=[[], ["PIPELINING"]], ids=["one by one", "pipelining"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server that each test finds running and leaves running: it is killed in each, and a start takes its time."""
    if not request.param and not request.config.getoption("--soak"):
        pytest.skip("one by one: part of the long form")
    smtpd = Smtpd(extensions=["SIZE 1000000", "8BITMIME", *request.param], narrow=True)
    with placed(tmp_path_factory.mktemp("kill"), smtpd, SMTP_IDLE_SECONDS="0.2") as place:
        toml = place.database.parent.parent / "sites" / "bikes" / "site.toml"
        toml.write_text(toml.read_text().replace("max = 100", "max = 20000"))
        place.server.start()
        yield place
        assert place.server.end() == 0
        assert "Traceback" not in place.server.log


def killed_with_all_at(place: Place, gate: Gate) -> None:
    """Kills the server once as many mails as it has connections stand at the gate, and then opens it."""
    wait_until(lambda: gate.stopped == CONNECTIONS)
    place.server.end(signal.SIGKILL)
    place.smtpd.rules.clear()
    gate.open()
    # By now the relay has made what it could of what it was sent.
    wait_until(lambda: place.smtpd.open == 0)


def restarted(place: Place) -> None:
    place.end_leases()
    place.server.start()


def times_taken(place: Place, emails: list[str]) -> list[int]:
    """How often the relay took each mail of these signups; all is as promised besides."""
    place.check(emails)
    marks = ",".join(f"${number}" for number in range(1, len(emails) + 1))
    mails = place.query(
        "SELECT message_id, attempts, uncertain, outcome, (SELECT count(*) FROM attempts WHERE outbox_id = outbox.id)"
        f" FROM outbox JOIN signups ON signups.id = signup_id WHERE email IN ({marks})",
        *emails,
    )
    # What a dead process tried is not known; the one attempt is that of its heir.
    assert {row[1:] for row in mails} == {(1, 0, "sent", 1)}
    taken = place.taken()
    return sorted(taken[id] for id, *_ in mails)


@pytest.mark.parametrize(
    ("step", "then", "times"),
    [
        pytest.param("greeting", reply(220, "smtpd"), 1, id="before MAIL"),
        pytest.param("mail", reply(250, "ok"), 1, id="after MAIL"),
        pytest.param("rcpt", reply(250, "ok"), 1, id="after RCPT"),
        pytest.param("data", reply(354, "go on"), 1, id="before the message"),
        # The kernel had the whole message already: the relay reads and takes it, and nobody hears of that.
        pytest.param("body", nothing, 2, id="in the message"),
        pytest.param("dot", accept, 2, id="before the 250"),
    ],
)
def test_killed(place: Place, step: str, then: Act, times: int) -> None:
    gate = Gate(then)
    if step == "greeting":
        # claimed, and no connection yet: those that were idle are gone
        wait_until(lambda: place.smtpd.open == 0)
    place.smtpd.on(step, gate)
    emails = place.sign_up(f"{step}-1", f"{step}-2")
    killed_with_all_at(place, gate)
    restarted(place)
    assert times_taken(place, emails) == [times] * CONNECTIONS


def test_killed_with_a_message_partly_sent(place: Place) -> None:
    """One that is too long for the buffers in between: its end dies with the process."""
    stuck = Gate(nothing)

    async def stop(session: Session) -> None:
        transport = session.writer.transport
        await session.reader.readuntil(b"\r\n")
        transport.pause_reading()  # type: ignore[attr-defined]
        await stuck(session)
        transport.resume_reading()  # type: ignore[attr-defined]

    place.smtpd.on("body", stop, when=lambda session: session.recipients == ["owner@bikeshed.example"])
    email = "partly@example.com"
    assert place.server.sign_up(email, message="\N{EURO SIGN}" * 15_000).status_code == 202
    wait_until(lambda: stuck.stopped == 1)
    # the visitor's mail is another matter: it is done with
    wait_until(lambda: place.query("SELECT state FROM outbox WHERE recipient = $1", email) == [("sent",)])
    place.server.end(signal.SIGKILL)
    place.smtpd.rules.clear()
    stuck.open()
    wait_until(lambda: place.smtpd.open == 0)
    restarted(place)
    assert times_taken(place, [email]) == [1, 1]


def test_killed_between_the_250_and_the_commit(place: Place) -> None:
    gate = Gate(accept)
    place.smtpd.on("dot", gate)
    emails = place.sign_up("committing-1", "committing-2")
    wait_until(lambda: gate.stopped == CONNECTIONS)
    with place.locked():
        goodbyes = place.smtpd.commands["QUIT"]
        gate.open()
        # It has read the replies: its connections are idle, and leave.
        wait_until(lambda: place.smtpd.commands["QUIT"] == goodbyes + CONNECTIONS)
        place.server.end(signal.SIGKILL)
    place.smtpd.rules.clear()
    restarted(place)
    assert times_taken(place, emails) == [2] * CONNECTIONS


def test_killed_in_the_transaction_of_the_signup(place: Place) -> None:
    answers: list[object] = []

    def post() -> None:
        try:
            answers.append(place.server.sign_up("unlucky@example.com").status_code)
        except httpx.TransportError as error:
            answers.append(type(error))

    with place.locked():
        visitor = threading.Thread(target=post)
        visitor.start()
        with httpx.Client() as client:
            for _ in range(50):  # what was posted before is long under way
                assert client.get(f"{place.server.url}/healthz").status_code == 200
        place.server.end(signal.SIGKILL)
        visitor.join()
    assert answers and answers != [202]  # nothing was promised
    restarted(place)
    emails = place.sign_up("lucky")
    assert times_taken(place, emails) == [1, 1]
    assert place.query("SELECT count(*) FROM signups WHERE email LIKE 'unlucky%'") == [(0,)]


def test_killed_right_after_the_202(place: Place) -> None:
    emails = place.sign_up("promised")
    place.server.end(signal.SIGKILL)
    wait_until(lambda: place.smtpd.open == 0)
    restarted(place)
    assert Counter(times_taken(place, emails)).keys() <= {1, 2}
