"""Who is mailed what, by what is known of an address: asked, greeted, told again, left alone."""

import asyncio
import json
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from server import limits, metrics, signup, tracing
from server.db import Database
from server.limits import Gate
from server.outbox import store
from server.signing import Keys
from server.signup import KeyReused, LimitExceeded, ProofRequired, Reception, Repeat, Visit, reception, register
from server.site import load
from tests.conftest import ON_SQLITE, add_site

KEYS = Keys(["a secret of some length"])
ASKS = """title = "{slug}"
[mail]
from = "hello@{slug}.example"
notify = ["one@{slug}.example", "two@{slug}.example"]
[signup]
{more}
[signup.fields.news]
type = "checkbox"
label = "Send me the newsletter."
consent = true
[signup.fields.message]
"""
TELLS = "double_opt_in = false"
ANN = "ann@example.com"
PAGE = Visit(has_token=True)


class Desk:
    """Sites, a database, and visitors."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.database = database
        self.gate = Gate(KEYS)
        self.receptions: dict[str, Reception] = {}
        self._folder = folder

    def site(self, slug: str, more: str = "") -> Reception:
        made = load(add_site(self._folder, slug, ASKS.format(slug=slug, more=more)))
        self.receptions[slug] = reception(made, base_url="http://localhost:8000", mail_from=None, keys=KEYS)
        return self.receptions[slug]

    async def post(self, slug: str, email: str = ANN, visit: Visit = PAGE, **fields: object) -> int:
        at = self.receptions.get(slug) or self.site(slug)
        return await register(self.database, self.gate, at, at.form.model_validate({"email": email, **fields}), visit)

    async def rows(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        def work(connection: Any) -> list[tuple[Any, ...]]:
            found = connection.execute(text(query), values)
            return [tuple(row) for row in found] if found.returns_rows else []

        return await self.database.transact(work)

    async def mails(self, signup_id: int) -> list[tuple[str, str]]:
        """Kind and state of each mail of a signup, as they were written."""
        query = "SELECT kind, state FROM outbox WHERE signup_id = :id ORDER BY id"
        return [(kind, state) for kind, state in await self.rows(query, id=signup_id)]

    async def status(self, signup_id: int) -> str:
        [(status,)] = await self.rows("SELECT status FROM signups WHERE id = :id", id=signup_id)
        return str(status)

    async def confirm(self, signup_id: int) -> bool:
        [(key,)] = await self.rows("SELECT key FROM signups WHERE id = :id", id=signup_id)
        return await signup.confirm(self.database, self.receptions, key)

    async def unsubscribe(self, slug: str, email: str = ANN) -> None:
        await signup.unsubscribe(self.database, slug, store.recipient_hash(email))

    async def bounce(self, email: str = ANN) -> None:
        await self.database.transact(store.suppress, store.recipient_hash(email), "bounced")

    async def pass_time(self, seconds: float) -> None:
        """As if so much time had passed for what is counted."""
        await self.rows("UPDATE counters SET until = until - :s", s=seconds)
        await self.rows("UPDATE idempotency SET created_at = created_at - :s", s=seconds)
        self.gate = Gate(KEYS)


@pytest.fixture
async def desk(tmp_path: Path, database_url: str) -> AsyncIterator[Desk]:
    database = Database(database_url)
    yield Desk(tmp_path / "sites", database)
    await database.close()


NEW, WAITING = ("notice", "pending"), ("notice", "awaiting")


async def stand(desk: Desk, standing: str) -> None:
    """Brings the address to where the next post finds it."""
    if standing != "new":
        first = await desk.post("bikes")
        if "confirmed" in standing and "unconfirmed" not in standing:
            await desk.confirm(first)
        if "unsubscribed" in standing:
            await desk.unsubscribe("bikes")
        if "bounced" in standing:
            await desk.bounce()


# -- what is written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "standing", "visitor", "notice", "status"),
    [
        ("", "new", ("confirm", "pending"), WAITING, "unconfirmed"),
        ("", "unconfirmed", ("confirm", "pending"), WAITING, "unconfirmed"),
        ("", "confirmed", ("already", "pending"), NEW, "confirmed"),
        ("", "confirmed, unsubscribed", ("confirm", "pending"), WAITING, "unconfirmed"),
        ("", "unconfirmed, unsubscribed", ("confirm", "pending"), WAITING, "unconfirmed"),
        ("", "confirmed, bounced", ("confirm", "suppressed"), WAITING, "unconfirmed"),
        (TELLS, "new", ("welcome", "pending"), NEW, "accepted"),
        (TELLS, "known", ("welcome", "pending"), NEW, "accepted"),
        (TELLS, "unsubscribed", ("confirm", "pending"), NEW, "accepted"),
        (TELLS, "bounced", ("confirm", "suppressed"), NEW, "accepted"),
    ],
)
async def test_standing_decides_who_is_mailed(
    desk: Desk, more: str, standing: str, visitor: tuple[str, str], notice: tuple[str, str], status: str
) -> None:
    desk.site("bikes", more)
    await stand(desk, standing)
    id = await desk.post("bikes")
    assert await desk.mails(id) == [visitor, notice, notice]  # as many rows, whatever the standing
    assert await desk.status(id) == status


async def test_spam_is_kept_and_mails_nobody(desk: Desk) -> None:
    desk.site("bikes", TELLS)
    id = await desk.post("bikes", visit=Visit(spam="honeypot"))
    assert await desk.mails(id) == [("welcome", "awaiting"), WAITING, WAITING]
    assert await desk.rows("SELECT status, spam FROM signups") == [("spam", "honeypot")]


async def test_nothing_that_was_typed_is_in_a_mail_to_the_visitor(desk: Desk) -> None:
    for _ in range(2):
        await desk.confirm(await desk.post("bikes", name="MARK", message="MARK https://spam.example"))
    found = await desk.rows("SELECT kind, data FROM outbox JOIN messages ON outbox_id = id")
    for kind, data in found:
        said = "".join(part.get_content() for part in message_from_bytes(data, policy=default).iter_parts())
        assert ("MARK" in said) == (kind == "notice"), kind
    assert {kind for kind, _ in found} == {"confirm", "welcome", "already", "notice"}


async def test_mail_to_a_visitor_can_be_unsubscribed_from_with_one_click(desk: Desk) -> None:
    """RFC 8058 section 3.1."""
    await desk.confirm(await desk.post("bikes"))
    for kind, data in await desk.rows("SELECT kind, data FROM outbox JOIN messages ON outbox_id = id"):
        mail = message_from_bytes(data, policy=default)
        if kind == "notice":
            assert mail["List-Unsubscribe"] is None
            continue
        assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        address = "".join(mail["List-Unsubscribe"].split())
        token = address.removeprefix("<http://localhost:8000/unsubscribe/").removesuffix(">")
        assert KEYS.read("unsubscribe", token) == f"bikes.{store.recipient_hash(ANN)}"


async def test_links_are_on_the_domain_of_a_site_that_has_one(desk: Desk) -> None:
    toml = 'hosts = ["bikes.example"]\n' + ASKS.format(slug="bikes", more="")
    desk.receptions["bikes"] = reception(
        load(add_site(desk._folder, "bikes", toml)), base_url="http://localhost:8000", mail_from=None, keys=KEYS
    )
    await desk.post("bikes")
    [(data,)] = await desk.rows("SELECT data FROM outbox JOIN messages ON outbox_id = id WHERE kind = 'confirm'")
    mail = message_from_bytes(data, policy=default)
    said = "".join(part.get_content() for part in mail.iter_parts())
    assert "https://bikes.example/confirm/" in said and "localhost" not in said


async def test_consent_is_kept_with_its_words(desk: Desk) -> None:
    await desk.post("bikes", news=True)
    await desk.post("bikes", news=False)
    found = await desk.rows("SELECT CAST(consents AS TEXT) FROM signups ORDER BY id")
    assert [consents and json.loads(consents) for (consents,) in found] == [{"news": "Send me the newsletter."}, None]


# -- confirming ----------------------------------------------------------------------------------------------------


async def test_confirming_tells_the_owner_and_greets_once(desk: Desk) -> None:
    id = await desk.post("bikes")
    for _ in range(2):
        assert await desk.confirm(id)
    assert await desk.mails(id) == [("confirm", "pending"), NEW, NEW, ("welcome", "pending")]
    assert await desk.status(id) == "confirmed"


async def test_two_who_confirm_at_once_greet_once(desk: Desk) -> None:
    id = await desk.post("bikes")
    assert await asyncio.gather(*(desk.confirm(id) for _ in range(5))) == [True] * 5
    assert [kind for kind, _ in await desk.mails(id)].count("welcome") == 1


async def test_one_link_confirms_all_that_came_from_the_address(desk: Desk) -> None:
    first, second = await desk.post("bikes"), await desk.post("bikes", "ANN@Example.com".lower())
    other, elsewhere = await desk.post("bikes", "bob@example.com"), await desk.post("boats")
    await desk.confirm(second)
    assert [await desk.status(id) for id in (first, second, other, elsewhere)] == [
        "confirmed",
        "confirmed",
        "unconfirmed",
        "unconfirmed",
    ]
    assert (await desk.mails(first))[1:] == [NEW, NEW]
    assert (await desk.mails(elsewhere))[1:] == [WAITING, WAITING]


async def test_confirming_takes_back_that_one_wanted_no_more(desk: Desk) -> None:
    desk.site("bikes", TELLS)
    await desk.post("bikes")
    await desk.unsubscribe("bikes")
    await desk.unsubscribe("boats")
    asked = await desk.post("bikes")
    await desk.confirm(asked)
    assert ("welcome", "pending") in await desk.mails(asked)
    assert await desk.rows("SELECT site FROM suppressions") == [("boats",)]
    assert (await desk.mails(await desk.post("bikes")))[0] == ("welcome", "pending")


async def test_signup_that_is_gone_or_spam_cannot_be_confirmed(desk: Desk) -> None:
    spam = await desk.post("bikes", visit=Visit(spam="honeypot"))
    await desk.confirm(spam)
    assert await desk.status(spam) == "spam"
    assert not await signup.confirm(desk.database, desk.receptions, "none")


async def test_site_that_is_gone_can_still_be_confirmed(desk: Desk) -> None:
    id = await desk.post("bikes")
    desk.receptions.clear()
    assert await desk.confirm(id)
    assert await desk.status(id) == "confirmed"


async def test_link_that_is_too_old_can_be_had_again_three_times_a_day(desk: Desk) -> None:
    id = await desk.post("bikes")
    [(key,)] = await desk.rows("SELECT key FROM signups")
    for _ in range(5):
        assert await signup.ask_again(desk.database, desk.gate, desk.receptions, key)
    assert [kind for kind, _ in await desk.mails(id)].count("confirm") == 3
    await desk.confirm(id)
    await desk.pass_time(86400)
    await signup.ask_again(desk.database, desk.gate, desk.receptions, key)
    assert [kind for kind, _ in await desk.mails(id)].count("confirm") == 3
    assert not await signup.ask_again(desk.database, desk.gate, desk.receptions, "none")


@pytest.mark.parametrize(("reason", "mails"), [("unsubscribed", 1), ("bounced", 0)])
async def test_old_link_of_who_wants_no_more_asks_once_a_week(desk: Desk, reason: str, mails: int) -> None:
    await desk.post("bikes")
    [(key,)] = await desk.rows("SELECT key FROM signups")
    await desk.database.transact(store.suppress, store.recipient_hash(ANN), reason, None, "bikes")
    for _ in range(3):
        assert await signup.ask_again(desk.database, desk.gate, desk.receptions, key)
    assert await desk.rows("SELECT count(*) FROM outbox WHERE kind = 'confirm'") == [(1 + mails,)]


# -- whose mail it is ----------------------------------------------------------------------------------------------


async def traces(desk: Desk, kind: str) -> list[str]:
    """The ids that mails of this kind were written under, by signup."""
    found = await desk.rows("SELECT trace FROM outbox WHERE kind = :kind ORDER BY signup_id, id", kind=kind)
    return [trace[3:35] for (trace,) in found]


async def test_mails_of_those_who_come_together_have_each_the_id_of_their_request(desk: Desk) -> None:
    desk.site("bikes")

    async def post(number: int) -> tuple[int, str]:
        with tracing.span("POST /signup") as request:
            return await desk.post("bikes", f"v{number}@example.com"), request.id

    came = sorted(await asyncio.gather(*(post(number) for number in range(20))))
    assert await traces(desk, "confirm") == [id for _, id in came]
    assert len({id for _, id in came}) == 20
    assert await traces(desk, "notice") == [id for _, id in came for _ in range(2)]


async def test_mails_of_who_confirms_or_asks_again_have_the_id_of_that_request(desk: Desk) -> None:
    with tracing.span("POST /signup") as first:
        await desk.post("bikes")
    [(key,)] = await desk.rows("SELECT key FROM signups")
    with tracing.span("POST /confirm") as again:
        await signup.ask_again(desk.database, desk.gate, desk.receptions, key)
    with tracing.span("POST /confirm") as confirming:
        await signup.confirm(desk.database, desk.receptions, key)
    assert len({first.id, again.id, confirming.id}) == 3
    assert await traces(desk, "confirm") == [first.id, again.id]
    assert await traces(desk, "welcome") == [confirming.id]
    assert await traces(desk, "notice") == [first.id, first.id]  # what waited is the signup's still


# -- wanting no more -----------------------------------------------------------------------------------------------


async def test_unsubscribing_cancels_what_is_written_and_is_of_one_site(desk: Desk) -> None:
    here, there = await desk.post("bikes"), await desk.post("boats")
    await desk.unsubscribe("bikes")
    assert await desk.mails(here) == [("confirm", "cancelled"), WAITING, WAITING]
    assert (await desk.mails(there))[0] == ("confirm", "pending")


async def test_claim_looks_again_whether_it_is_wanted(desk: Desk) -> None:
    """What was written in the same instant, by another process."""
    desk.site("bikes", TELLS)
    await desk.post("bikes")
    await desk.database.transact(store.suppress, store.recipient_hash(ANN), "unsubscribed", None, "bikes")
    claimed = await desk.database.transact(store.claim, "A", 10, 60.0)
    assert sorted(row.recipient for row in claimed) == ["one@bikes.example", "two@bikes.example"]


@pytest.mark.parametrize(("reason", "sent"), [("unsubscribed", True), ("erased", True), ("bounced", False)])
async def test_claim_lets_one_kind_go_to_who_wanted_no_more(desk: Desk, reason: str, sent: bool) -> None:
    await desk.post("bikes")
    await desk.database.transact(store.suppress, store.recipient_hash(ANN), reason, None, "bikes")
    claimed = await desk.database.transact(store.claim, "A", 10, 60.0)
    assert [row.kind for row in claimed] == (["confirm"] if sent else [])


async def test_who_wanted_no_more_is_asked_once_a_week(desk: Desk) -> None:
    desk.site("bikes", TELLS)
    await desk.unsubscribe("bikes")
    asked = [(await desk.mails(await desk.post("bikes")))[0][1] for _ in range(2)]
    await desk.pass_time(6.9 * 86400)
    asked.append((await desk.mails(await desk.post("bikes")))[0][1])
    await desk.pass_time(0.2 * 86400)
    asked.append((await desk.mails(await desk.post("bikes")))[0][1])
    assert asked == ["pending", "suppressed", "suppressed", "pending"]


# -- limits --------------------------------------------------------------------------------------------------------


async def test_who_has_confirmed_is_told_once_a_day_and_the_owner_each_time(desk: Desk) -> None:
    await desk.confirm(await desk.post("bikes"))
    told = [await desk.mails(await desk.post("bikes")) for _ in range(3)]
    assert [mails[0] for mails in told] == [("already", "pending"), *[("already", "suppressed")] * 2]
    assert all(mails[1:] == [NEW, NEW] for mails in told)
    await desk.pass_time(86400)
    assert (await desk.mails(await desk.post("bikes")))[0] == ("already", "pending")


async def test_one_address_in_many_spellings_has_one_allowance(desk: Desk) -> None:
    """List bombing: variants that reach the same person count as one."""
    sent = []
    for number, email in enumerate(
        ["ann.b@gmail.com", "annb@gmail.com", "a.n.n.b+x@gmail.com", "ANNB+y@googlemail.com", "an.nb@gmail.com"] * 2
    ):
        id = await desk.post(f"site{number}", email)
        sent.append((await desk.mails(id))[0][1])
    assert sent == ["pending"] * 5 + ["suppressed"] * 5
    [(reply,)] = await desk.rows("SELECT DISTINCT reply FROM outbox WHERE state = 'suppressed'")
    assert reply == "held back: 5 per day to one address"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Ann@Example.com", "ann@example.com", True),
        ("ann+bikes@example.com", "ann@example.com", True),
        ("a.nn@example.com", "ann@example.com", False),
        ("a.nn@gmail.com", "ann@googlemail.com", True),
        ("+ann@example.com", "ann@example.com", False),
    ],
)
def test_canonical_address(one: str, other: str, same: bool) -> None:
    assert (limits.canonical(one) == limits.canonical(other)) is same


async def test_network_has_sixty_posts_in_ten_minutes(desk: Desk) -> None:
    visit = Visit("192.0.2.1", has_token=True)
    for number in range(60):
        await desk.post("bikes", f"v{number}@example.com", visit)
    with pytest.raises(LimitExceeded) as caught:
        await desk.post("bikes", visit=visit)
    assert 590 < caught.value.retry_after <= 600
    assert await desk.rows("SELECT count(*) FROM signups") == [(60,)]
    await desk.post("bikes", visit=Visit("192.0.2.2", has_token=True))
    await desk.post("boats", visit=visit)
    await desk.pass_time(600)
    await desk.post("bikes", visit=visit)


async def test_limit_is_that_of_site_toml_and_right_across_processes(desk: Desk) -> None:
    desk.site("bikes", 'client_limit = "2 per minute"')
    for _ in range(2):
        desk.gate = Gate(KEYS)  # another process
        await desk.post("bikes")
    desk.gate = Gate(KEYS)
    with pytest.raises(LimitExceeded):
        await desk.post("bikes")


async def test_refusal_is_remembered_and_costs_no_transaction(desk: Desk) -> None:
    desk.site("bikes", 'client_limit = "1 per minute"')
    await desk.post("bikes")
    with pytest.raises(LimitExceeded):
        await desk.post("bikes")
    before = await desk.rows("SELECT * FROM counters ORDER BY key")
    with pytest.raises(LimitExceeded) as caught:
        await desk.post("bikes")
    assert 50 < caught.value.retry_after <= 60
    assert await desk.rows("SELECT * FROM counters ORDER BY key") == before


async def test_posts_at_the_same_time_are_counted_each(desk: Desk) -> None:
    desk.site("bikes", 'client_limit = "3 per minute"')
    done = await asyncio.gather(*(desk.post("bikes", f"v{n}@example.com") for n in range(8)), return_exceptions=True)
    assert [type(one) for one in done].count(int) == 3
    assert sum(isinstance(one, LimitExceeded) for one in done) == 5


async def test_without_a_token_a_network_has_less(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNTOKENED", "2 per hour")
    for _ in range(2):
        await desk.post("bikes", visit=Visit("192.0.2.1"))
    for _ in range(2):  # the second time it is remembered
        with pytest.raises(LimitExceeded):
            await desk.post("bikes", visit=Visit("192.0.2.1"))
    await desk.post("bikes", visit=Visit("192.0.2.1", has_token=True))  # who shares the network and has one


async def test_site_has_a_limit_for_all(desk: Desk) -> None:
    desk.site("bikes", 'site_limit = "4 per hour"')
    proofs = iter("abcdef")
    with pytest.raises(LimitExceeded):
        for number in range(5):
            await desk.post("bikes", visit=Visit(f"192.0.2.{number}", has_token=True, proof=next(proofs)))
    assert await desk.rows("SELECT count(*) FROM signups") == [(4,)]


async def test_limits_off(desk: Desk) -> None:
    desk.site("bikes", 'client_limit = "1 per minute"\nproof_of_work = true')
    desk.gate = Gate(KEYS, enabled=False)
    for _ in range(7):
        assert (await desk.mails(await desk.post("bikes")))[0] == ("confirm", "pending")
    assert await desk.rows("SELECT * FROM counters") == []


async def test_counters_tell_nobody_whom_they_count(desk: Desk) -> None:
    await desk.post("bikes", visit=Visit("192.0.2.77"))
    told = " ".join(key for (key,) in await desk.rows("SELECT key FROM counters"))
    assert "192.0.2.77" not in told and "ann" not in told and store.recipient_hash(ANN) not in told


async def test_clock_set_back_frees_who_was_refused(desk: Desk) -> None:
    desk.site("bikes", 'client_limit = "1 per minute"')
    await desk.post("bikes")
    await desk.pass_time(-86400)
    await desk.post("bikes")


# -- proof of work -------------------------------------------------------------------------------------------------


async def test_site_that_wants_a_proof_takes_each_once(desk: Desk) -> None:
    at = desk.site("bikes", "proof_of_work = true")
    assert await signup.proof_wanted(desk.database, desk.gate, at.site)
    with pytest.raises(ProofRequired):
        await desk.post("bikes")
    await desk.post("bikes", visit=Visit(proof="p1"))
    desk.gate = Gate(KEYS)  # another process
    with pytest.raises(ProofRequired):
        await desk.post("bikes", visit=Visit(proof="p1"))
    assert await desk.rows("SELECT count(*) FROM signups") == [(1,)]


async def test_one_proof_at_the_same_time_is_good_for_one(desk: Desk) -> None:
    desk.site("bikes", "proof_of_work = true")
    posts = (desk.post("bikes", visit=Visit(proof="p1")) for _ in range(4))
    done = await asyncio.gather(*posts, return_exceptions=True)
    assert sum(isinstance(one, ProofRequired) for one in done) == 3


async def test_site_under_attack_wants_a_proof_until_it_is_over(desk: Desk) -> None:
    at = desk.site("bikes", 'site_limit = "10 per hour"')
    posted = 0
    with pytest.raises(ProofRequired):
        for number in range(10):
            assert await signup.proof_wanted(desk.database, desk.gate, at.site) is (posted == 3)
            await desk.post("bikes", visit=Visit(f"192.0.2.{number}"))
            posted += 1
    assert posted == 3
    assert await signup.proof_wanted(desk.database, desk.gate, at.site)
    await desk.post("bikes", visit=Visit(spam="honeypot"))  # who is taken for spam learns nothing
    await desk.pass_time(3600)
    assert not await signup.proof_wanted(desk.database, desk.gate, at.site)
    await desk.post("bikes")


# -- the same post again -------------------------------------------------------------------------------------------


def again(body: str = "b", key: str = "k") -> Visit:
    return Visit(has_token=True, repeat=Repeat(key, body))


async def test_same_key_and_body_is_one_signup(desk: Desk) -> None:
    ids = {await desk.post("bikes", visit=again()) for _ in range(3)}
    assert len(ids) == 1
    assert await desk.rows("SELECT count(*) FROM outbox") == [(3,)]


async def test_same_key_at_the_same_time_is_one_signup(desk: Desk) -> None:
    desk.site("bikes")
    found = await asyncio.gather(*(desk.post("bikes", visit=again()) for _ in range(5)))
    assert len(set(found)) == 1
    assert await desk.rows("SELECT count(*) FROM signups") == [(1,)]


async def test_same_key_with_another_body_is_refused(desk: Desk) -> None:
    await desk.post("bikes", visit=again())
    with pytest.raises(KeyReused):
        await desk.post("bikes", visit=again("c"))
    await desk.post("bikes", visit=again("c", "l"))


async def test_key_is_forgotten_after_a_day(desk: Desk) -> None:
    first = await desk.post("bikes", visit=again())
    await desk.pass_time(86401)
    assert await desk.post("bikes", visit=again("c")) != first


@ON_SQLITE  # counted in this process, so once
async def test_what_is_kept_out_is_counted(desk: Desk) -> None:
    desk.site("counted", 'client_limit = "2 per hour"\nproof_of_work = true')
    visits = [Visit(spam="honeypot", has_token=True), PAGE, PAGE, PAGE]
    done = [await asyncio.gather(desk.post("counted", visit=visit), return_exceptions=True) for visit in visits]
    assert [type(one) for (one,) in done] == [int, ProofRequired, LimitExceeded, LimitExceeded]
    text, _ = metrics.exposition(metrics.Reading(None, None))
    told = [line for line in text.decode().splitlines() if 'site="counted"' in line and "_created" not in line]
    assert sorted(told) == [
        'doorbell_signups_confirmed_total{site="counted"} 0.0',
        'doorbell_signups_refused_total{reason="limit",site="counted"} 2.0',
        'doorbell_signups_refused_total{reason="proof",site="counted"} 1.0',
        'doorbell_signups_spam_total{site="counted"} 1.0',
        'doorbell_signups_total{site="counted"} 0.0',
        'doorbell_unsubscribes_total{site="counted"} 0.0',
    ]
