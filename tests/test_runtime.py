"""Start-up and shutdown: hooks in order, undone in reverse, and a clear word when one fails."""

import asyncio
from pathlib import Path

import pytest

from server import runtime
from server.db import Database
from server.mail.message import Content, compose
from server.outbox import dispatcher, store
from server.runtime import Runtime, StartupError, Step, opened
from server.settings import Settings, load
from tests.conftest import eventually, keeping
from tests.outbox.conftest import add
from tests.smtpd import Smtpd


class Diary:
    """Steps that write down what is done to them."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def plain(self, name: str) -> Step:
        return Step(name, lambda: self.entries.append(f"open {name}"), lambda: self.entries.append(f"close {name}"))

    def coroutine(self, name: str) -> Step:
        async def write(entry: str) -> None:
            await asyncio.sleep(0)
            self.entries.append(f"{entry} {name}")

        return Step(name, lambda: write("open"), lambda: write("close"))

    def failing(self, name: str, error: BaseException, *, at_close: bool = False) -> Step:
        def fail() -> None:
            self.entries.append(f"fail {name}")
            raise error

        note = self.plain(name)
        return Step(name, note.open, fail) if at_close else Step(name, fail, note.close)


@pytest.fixture
def diary() -> Diary:
    return Diary()


async def test_steps_open_in_order_and_close_in_reverse(diary: Diary) -> None:
    async with opened([diary.plain("a"), diary.coroutine("b"), diary.plain("c")]):
        assert diary.entries == ["open a", "open b", "open c"]
    assert diary.entries[3:] == ["close c", "close b", "close a"]


async def test_step_without_a_close_is_fine(diary: Diary) -> None:
    async with opened([Step("a", lambda: None), diary.plain("b")]):
        pass
    assert diary.entries == ["open b", "close b"]


async def test_step_that_fails_closes_those_before_it_and_opens_none_after(diary: Diary) -> None:
    steps = [diary.plain("a"), diary.coroutine("b"), diary.failing("c", OSError("disk full")), diary.plain("d")]
    with pytest.raises(StartupError) as caught:
        async with opened(steps):
            pytest.fail("opened")
    assert diary.entries == ["open a", "open b", "fail c", "close b", "close a"]
    assert (caught.value.step, caught.value.reason, str(caught.value)) == ("c", "disk full", "c: disk full")


async def test_startup_error_of_a_wordless_exception_still_says_something(diary: Diary) -> None:
    with pytest.raises(StartupError, match="a: TimeoutError"):
        async with opened([diary.failing("a", TimeoutError())]):
            pass


async def test_close_that_fails_does_not_keep_the_rest_open(diary: Diary) -> None:
    steps = [diary.plain("a"), diary.failing("b", OSError(), at_close=True), diary.coroutine("c")]
    async with opened(steps):
        pass
    assert diary.entries[3:] == ["close c", "fail b", "close a"]


async def test_close_that_fails_after_an_open_that_failed(diary: Diary) -> None:
    steps = [diary.plain("a"), diary.failing("b", OSError(), at_close=True), diary.failing("c", OSError("gone"))]
    with pytest.raises(StartupError, match="c: gone"):
        async with opened(steps):
            pass
    assert diary.entries == ["open a", "open b", "fail c", "fail b", "close a"]


async def test_exception_of_the_body_passes_and_everything_is_closed(diary: Diary) -> None:
    with pytest.raises(LookupError):
        async with opened([diary.plain("a")]):
            raise LookupError
    assert diary.entries == ["open a", "close a"]


async def test_start_that_is_cancelled_closes_what_was_open(diary: Diary) -> None:
    begun = asyncio.Event()

    async def never() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def start() -> None:
        async with opened([diary.plain("a"), Step("b", never), diary.plain("c")]):
            pytest.fail("opened")

    starting = asyncio.create_task(start())
    await begun.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert diary.entries == ["open a", "close a"]


# -- the real ones -----------------------------------------------------------------------------------------------------


def test_nothing_is_opened_before_the_steps_are(settings: Settings) -> None:
    made = Runtime(settings)
    assert [step.name for step in made.steps()] == [
        "traces",
        "database",
        "mailbox",
        "smtp pool",
        "dispatcher",
        "jobs",
        "metrics",
    ]
    assert not settings.data_dir.exists()


def test_with_a_relay_there_is_no_mailbox(environ: dict[str, str]) -> None:
    settings = load(environ | {"DOORBELL_SMTP_URL": "smtp://127.0.0.1:1", "DOORBELL_MAIL_FROM": "a@b.example"})
    assert [step.name for step in Runtime(settings).steps()] == [
        "traces",
        "database",
        "smtp pool",
        "dispatcher",
        "jobs",
        "metrics",
    ]


async def test_mail_goes_from_the_outbox_to_the_mailbox(settings: Settings) -> None:
    made = Runtime(settings)
    async with opened(made.steps()):
        mail = compose(Content("Hello", "a", "b"), sender="a@b.example", recipient="c@d.example", domain="b.example")
        welcome = store.Mail("welcome", mail, to_visitor=True)
        await made.database.transact(store.add, [store.Addressed("bikes", None, welcome)])
        assert (await made.health())["ready"] is True
        made.wake()
        box = made.mailbox
        assert box is not None

        async def arrived() -> bool:
            return (await box.newest(1))[0] == 1

        await eventually(arrived)
    assert "closed" in repr(made.pool) and "closing" in repr(made.dispatcher)


async def test_health_names_what_is_wrong_with_the_relay(environ: dict[str, str]) -> None:
    settings = load(environ | {"DOORBELL_SMTP_URL": "smtp://127.0.0.1:1", "DOORBELL_MAIL_FROM": "a@b.example"})
    made = Runtime(settings)
    async with opened(made.steps()):
        health = await made.health()
    assert (health["ready"], health["database"], health["smtp"]) == (True, "ok", "unavailable")
    assert (health["smtp_fault"], health["breaker"]) == ({"stage": "connect", "code": None}, "open")
    assert health["pool"]["leased"] <= 1 and health["pending_mails"] == 0


async def test_health_of_a_healthy_server(settings: Settings) -> None:
    made = Runtime(settings)
    async with opened(made.steps()):
        health = await made.health()
    assert (health["ready"], health["smtp"], health["smtp_fault"], health["breaker"]) == (
        True,
        "mailbox",
        None,
        "closed",
    )
    assert health["oldest_pending_seconds"] is None


async def test_database_that_cannot_open_stops_the_start(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = load(environ | {"DOORBELL_DATA_DIR": str(tmp_path / "file")})
    with pytest.raises(StartupError, match=r"database: .*cannot be made"):
        async with opened(Runtime(settings).steps()):
            pass


async def test_can_start_again_after_it_stopped(settings: Settings) -> None:
    made = Runtime(settings)
    for _ in range(2):
        async with opened(made.steps()):
            assert (await made.health())["ready"] is True


def test_relay_greets_with_the_name_of_the_server(environ: dict[str, str]) -> None:
    more = {"DOORBELL_SMTP_URL": "smtps://me:p%40ss@mail.example", "DOORBELL_BASE_URL": "https://www.bikes.example"}
    relay = runtime.relay(load(environ | more | {"DOORBELL_MAIL_FROM": "a@b.example"}))
    assert (relay.host, relay.tls, relay.username, relay.password) == ("mail.example", "tls", "me", "p@ss")
    assert relay.local_hostname == "www.bikes.example"


async def test_mail_that_another_process_adds_leaves_at_once_where_it_can_be_told(
    environ: dict[str, str], postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "POLL_SECONDS", 3600.0)
    async with Smtpd().listening() as smtpd:
        more = {"DOORBELL_SMTP_URL": f"smtp://127.0.0.1:{smtpd.port}", "DOORBELL_MAIL_FROM": "a@b.example"}
        made = Runtime(load(keeping(environ, postgresql_url) | more, env_file=None))
        other = Database(postgresql_url)
        async with opened(made.steps()):
            await eventually(lambda: made.dispatcher.drain(1))  # it sleeps
            await add(other, "a@x.example")
            await eventually(lambda: len(smtpd.mails) == 1)
        await other.close()
