"""What a signup means: which mails it causes, who has confirmed, and who wants no more.

`register` writes the signup and its mails in one transaction. Every signup writes the same rows, whatever is known of
its address: one mail to the visitor, one to each owner. Only their states differ, so that neither the answer nor its
time tells anything. Knows no HTTP and no SMTP.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parseaddr
from secrets import token_hex
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from server import limits, log, metrics, tracing
from server.db import Database
from server.db.across import alone, announce
from server.db.tables import idempotency, now, outbox, signups, suppressions
from server.form import Form, Value, form_model, sample
from server.i18n import Text, catalogue
from server.limits import Gate
from server.mail.message import Body, Frame, Message
from server.mail.templates import TemplateProblem, Templates
from server.outbox import store
from server.signing import Keys
from server.site import Site, SiteError, mailbox

_log = log.get(__name__)

CONFIRM_SECONDS = 7 * 86400.0
# How long the same Idempotency-Key means the same post.
REPEAT_SECONDS = 86400.0
_YES, _NO = Text("yes"), Text("no")
# What a digest calls mails and signups.
_KINDS = {
    "confirm": Text("Request to confirm"),
    "already": Text("Reminder to somebody known"),
    "welcome": Text("Welcome"),
    "notice": Text("Notice of a signup"),
}
_STATUSES = {
    "confirmed": Text("Confirmed"),
    "accepted": Text("Accepted"),
    "unconfirmed": Text("Not confirmed"),
    "spam": Text("Taken for spam"),
}
# Of what a mail server said, a digest repeats so many characters.
_LONGEST_REPLY = 300
# A signup's key is the time and 64 random bits, as long for each, so that links are too.
_KEY_LENGTH = 29


class LimitExceeded(Exception):
    """Too many posts from one network, or to one site; another may come in `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"again in {retry_after} seconds")
        self.retry_after = retry_after


class ProofRequired(Exception):
    """The site asks for a proof of work, and there is none."""


class KeyReused(Exception):
    """The Idempotency-Key came with another form before."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """By what a post is known again: hashes of its Idempotency-Key (with the site) and of its fields."""

    key: str
    body: str


@dataclass(frozen=True, slots=True)
class Visit:
    """What is known of a post besides its fields.

    `network` is the client's as text, empty where it is not known. `has_token`: a page of the site was open for a
    while. `spam` is why it is taken for spam. `proof` names a valid proof of work, which is good for one signup.
    """

    network: str = ""
    has_token: bool = False
    spam: str | None = None
    proof: str | None = None
    repeat: Repeat | None = None


@dataclass(frozen=True, slots=True)
class Reception:
    """A site as a signup meets it: what it asks for, and what it sends. Built at start, immutable.

    `sender` is the From of its mails, `frame` what they share. `bodies` are the mails to visitors, by kind: but for
    their links they say the same to everybody. `about` is what a mail may tell of the site; `base` begins its links.
    """

    site: Site
    form: type[Form]
    templates: Templates
    about: Mapping[str, object]
    sender: str
    frame: Frame
    bodies: Mapping[str, Body]
    base: str
    keys: Keys

    @property
    def locale(self) -> str:
        return self.site.locale


def reception(site: Site, *, base_url: str, mail_from: str | None, keys: Keys) -> Reception:
    """Everything that a signup needs of `site`, compiled and tried out.

    `mail_from` stands in where the site names no sender; `keys` sign its links. Raises SiteError: no sender, or a
    broken template.
    """
    sender = _sender(site, mail_from)
    # Message-IDs are on the site's own domain, else on its sender's.
    frame = Frame(sender, site.hosts[0] if site.hosts else parseaddr(sender)[1].rpartition("@")[2])
    base = f"https://{site.hosts[0]}" if site.hosts else base_url
    form, templates = form_model(site), Templates(site.emails, site.locale)
    about = _about(site, base)
    problems = [f"{file}: is no template's name" for file in templates.strangers()]
    samples = [entry(site, _answers(sample(site, form, full)), time.time()) for full in (True, False)]
    tried: list[tuple[str, Mapping[str, object]]] = [("notice", _notice(about, one)) for one in samples]
    tried.append(("digest", digest_sample(site, about, samples)))
    for kind, values in tried:
        try:
            templates.check(kind, values)
        except TemplateProblem as problem:
            problems.append(str(problem))
    bodies: dict[str, Body] = {}
    for kind in ("confirm", "already", "welcome"):
        try:
            bodies[kind] = _body(templates, kind, about, site, base, keys)
        except (TemplateProblem, ValueError) as problem:
            problems.append(str(problem))
    if problems:
        raise SiteError(list(dict.fromkeys(problems)))
    metrics.known(site.slug)
    return Reception(site, form, templates, about, sender, frame, bodies, base, keys)


def _sender(site: Site, mail_from: str | None) -> str:
    sender = site.mail.sender or mail_from
    if sender is None:
        file = site.folder / "site.toml"
        raise SiteError([f"{file}: mail.from is missing, and DOORBELL_MAIL_FROM is not set: a relay needs a sender"])
    try:
        return mailbox(sender)
    except ValueError as error:  # site.toml's own was checked when it was read
        raise SiteError([f"DOORBELL_MAIL_FROM: {error}"]) from None


# -- mails ---------------------------------------------------------------------------------------------------------


def _about(site: Site, base: str) -> dict[str, object]:
    url = f"{base}/" if site.hosts else f"{base}/{site.slug}/"
    return {"title": site.title, "locale": site.locale, "url": url, "accent": site.colors.accent}


def confirm_token(keys: Keys, key: str) -> str:
    """What a link to confirm the signup of this key ends in."""
    return keys.stamp("confirm", key)


def unsubscribe_token(keys: Keys, site: str, recipient_hash: str) -> str:
    """What a link ends in that unsubscribes this address from the site. It needs no row, so it works for ever."""
    return keys.sign("unsubscribe", f"{site}.{recipient_hash}")


def _body(templates: Templates, kind: str, about: Mapping[str, object], site: Site, base: str, keys: Keys) -> Body:
    """A mail to visitors, encoded but for the ends of its links. Its template is given nothing that a visitor wrote:
    whoever types another's address must not be able to send them a text of his own."""
    confirm = confirm_token(keys, "0" * _KEY_LENGTH)
    unsubscribe = unsubscribe_token(keys, site.slug, "0" * 64)
    values = {
        "site": dict(about),  # a template is code, and could change it
        "unsubscribe_url": f"{base}/unsubscribe/{unsubscribe}",
        **({"confirm_url": f"{base}/confirm/{confirm}", "days": 7} if kind == "confirm" else {}),
    }
    templates.check(kind, values)
    content = templates.render(kind, values)
    ends = {"unsubscribe": unsubscribe, **({"confirm": confirm} if kind == "confirm" else {})}
    # A site's own template may leave out the way to unsubscribe: the mail's header has it.
    shown = {name: end for name, end in ends.items() if name == "confirm" or end in content.text + content.html}
    try:
        return Body(content, shown)
    except ValueError as error:
        raise TemplateProblem(f"{site.emails}/{kind}", str(error)) from None


def to_visitor(reception: Reception, kind: str, email: str, hashed: str, key: str = "") -> Message:
    """A mail of this kind to a visitor; `key` is the signup's, for a mail that asks to confirm it."""
    unsubscribe = unsubscribe_token(reception.keys, reception.site.slug, hashed)
    holes = {"unsubscribe": unsubscribe}
    if kind == "confirm":
        holes["confirm"] = confirm_token(reception.keys, key)
    url = f"{reception.base}/unsubscribe/{unsubscribe}"
    return reception.frame.fill(reception.bodies[kind], email, holes=holes, unsubscribe=url)


def entry(site: Site, signup: Mapping[str, Any], received: float) -> dict[str, object]:
    """A signup (`email`, `name`, and the answers) as a mail to the owner shows it. `received`: seconds since 1970."""
    answers = signup["fields"]
    declared = site.signup.fields
    fields = [
        {"name": name, "label": site.label(name) if name in declared else name, "value": _shown(value, site.locale)}
        for name, value in answers.items()
    ]
    return {"email": signup["email"], "name": signup["name"], "fields": fields, "received": _when(received)}


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _notice(about: Mapping[str, object], one: Mapping[str, object]) -> dict[str, object]:
    return {"site": dict(about), **one}


def failure(site: Site, kind: str, recipient: str, reply: str | None, ended: float) -> dict[str, object]:
    """A mail that failed as a digest shows it. `ended`: seconds since 1970."""
    said = " ".join((reply or "").split())
    if len(said) > _LONGEST_REPLY:
        said = f"{said[:_LONGEST_REPLY]}…"
    what = _KINDS[kind].within(catalogue(site.locale)) if kind in _KINDS else kind
    return {"kind": kind, "what": what, "recipient": recipient, "reply": said, "when": _when(ended)}


def digest_values(
    site: Site,
    about: Mapping[str, object],
    entries: Sequence[Mapping[str, object]],
    more: int,
    failures: Sequence[Mapping[str, object]],
    more_failures: int,
    counts: Mapping[str, int],
    since: float,
) -> dict[str, object]:
    """What a digest may speak of: signups nobody confirmed, as `entry` makes them, and mails that failed, as `failure`
    does; how many are not among them; and how many signups of each status came `since` then (seconds since 1970)."""
    words = catalogue(site.locale)
    came = [
        {"status": status, "label": label.within(words), "count": counts[status]}
        for status, label in _STATUSES.items()
        if counts.get(status)
    ]
    listed = {"entries": list(entries), "more": more, "failures": list(failures), "more_failures": more_failures}
    return {"site": dict(about), **listed, "counts": came, "since": _when(since)}


def digest_sample(
    site: Site, about: Mapping[str, object], entries: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """What a digest may look like that tells of these signups."""
    ended, reply = time.time() - 3600, "rcpt: 550 5.1.1 There is no such mailbox here"
    people = {"confirm": str(entries[0]["email"]), "notice": next(iter(site.mail.notify), "owner@example.com")}
    failures = [failure(site, kind, recipient, reply, ended) for kind, recipient in people.items()]
    counts = dict.fromkeys(_STATUSES, 2)
    return digest_values(site, about, entries, 3, failures, 2, counts, time.time() - 86400)


def _shown(value: Value, locale: str) -> str | None:
    return (_YES if value else _NO).within(catalogue(locale)) if isinstance(value, bool) else value


def _notices(reception: Reception, row: Mapping[str, Any]) -> list[Message]:
    """The owner is told by name and in full, whoever wrote it; an answer goes to the visitor."""
    if not (owners := reception.site.mail.notify):
        return []
    values = _notice(reception.about, entry(reception.site, row, time.time()))
    body = Body(reception.templates.render("notice", values))
    return [reception.frame.fill(body, owner, reply_to=str(row["email"])) for owner in owners]


# -- signing up ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """A signup and all that may have to be written with it. `visitor` are the two mails of which one is: what asks to
    confirm, and what greets. `trace` is kept here, for who writes them writes those of other requests too."""

    gate: Gate
    site: Site
    visit: Visit
    row: dict[str, Any]
    visitor: Mapping[str, Message]
    notices: Sequence[Message]
    trace: str | None


@dataclass(frozen=True, slots=True)
class _Standing:
    """What is known of an address at a site: whether it has confirmed, and why it gets no mail."""

    confirmed: bool = False
    suppressed: str | None = None


def _answers(form: Form) -> dict[str, Any]:
    return {"email": form.email, "name": form.name, "fields": form.answers}


def _row(site: Site, form: Form) -> dict[str, Any]:
    row = _answers(form)
    fields = site.signup.fields
    ticked = {name: site.label(name) for name, value in row["fields"].items() if value is True and fields[name].consent}
    key = f"{time.time_ns() // 1000:x}{token_hex(8)}"
    hashed = store.recipient_hash(form.email)
    return row | {"site": site.slug, "consents": ticked or None, "key": key, "recipient_hash": hashed}


def _entry(gate: Gate, reception: Reception, form: Form, visit: Visit) -> _Entry:
    site, row = reception.site, _row(reception.site, form)
    kinds = ("confirm", "already" if site.signup.double_opt_in else "welcome")
    mails = {kind: to_visitor(reception, kind, form.email, row["recipient_hash"], row["key"]) for kind in kinds}
    return _Entry(gate, site, visit, row, mails, _notices(reception, row), tracing.current())


async def register(database: Database, gate: Gate, reception: Reception, form: Form, visit: Visit = Visit()) -> int:
    """Writes the signup and its mails, all or nothing, and answers the signup's id.

    After it returns they survive a crash. The same post again (see `Repeat`) is answered with the same id. Raises
    LimitExceeded, ProofRequired, KeyReused and DatabaseUnavailable; then nothing was written.
    """
    site = reception.site
    for _, name in [*_rules(gate, site, visit), ("", _all_of(gate, site))]:
        if wait := gate.remembered(name):
            metrics.refused(site.slug, "limit")
            raise LimitExceeded(wait)
    with tracing.span("signup.register", site=site.slug) as span:
        done = await database.join(_write, _entry(gate, reception, form, visit))
        span.note(signup_id=done if isinstance(done, int) else None)
    if isinstance(done, _Full):
        metrics.refused(site.slug, "limit")
        gate.remember(done.name, done.seconds)
        raise LimitExceeded(done.seconds)
    if isinstance(done, Exception):
        if isinstance(done, ProofRequired):
            metrics.refused(site.slug, "proof")
        raise done
    count = metrics.spam if visit.spam else metrics.signed_up
    count(site.slug)
    _log.info("signup.accepted", signup_id=done, site=site.slug, **({"spam": visit.spam} if visit.spam else {}))
    return done


@dataclass(frozen=True, slots=True)
class _Full:
    """A limit that is used up, for so many seconds."""

    name: str
    seconds: int


def _rules(gate: Gate, site: Site, visit: Visit) -> list[tuple[str, str]]:
    """The limits of this client at this site, each with the name that it is counted by."""
    rules = [(site.signup.client_limit, gate.name("client", site.slug, visit.network))]
    if not visit.has_token:
        rules.append((limits.UNTOKENED, gate.name("untokened", site.slug, visit.network)))
    return rules


def _all_of(gate: Gate, site: Site) -> str:
    return gate.name("site", site.slug)


_ADD = insert(signups).values(created_at=now()).returning(signups.c.id, sort_by_parameter_order=True)


def _write(connection: Connection, entries: Sequence[_Entry]) -> Sequence[int | _Full | Exception]:
    """The signups of those who came at the same time, and all their mails; answers their ids, or why there is none."""
    # What is counted, and what is known of an address, is read first and written later.
    alone(connection, "signups")
    known = _standings(connection, entries)
    answers: dict[int, int | _Full | Exception] = {}
    admitted: dict[int, tuple[_Entry, list[store.Mail]]] = {}

    def add() -> None:
        if admitted:
            ids = _add(connection, list(admitted.values()))
            answers.update(zip(admitted, ids, strict=True))
            admitted.clear()

    for place, entry in enumerate(entries):
        if entry.visit.repeat:
            add()  # it may be one of these that it repeats
        if (answer := _answer(connection, entry)) is not None:
            answers[place] = answer
        else:
            standing = known.get((entry.site.slug, entry.row["recipient_hash"]), _Standing())
            admitted[place] = (entry, _decide(connection, entry, standing))
    add()
    return [answers[place] for place in range(len(entries))]


def _add(connection: Connection, admitted: Sequence[tuple[_Entry, list[store.Mail]]]) -> Sequence[int]:
    ids = connection.execute(_ADD, [entry.row for entry, _ in admitted]).scalars().all()
    mails = [
        store.Addressed(entry.site.slug, id, mail, entry.trace)
        for id, (entry, mails) in zip(ids, admitted, strict=True)
        for mail in mails
    ]
    store.add(connection, mails)
    for id, (entry, _) in zip(ids, admitted, strict=True):
        if repeat := entry.visit.repeat:
            connection.execute(delete(idempotency).where(idempotency.c.key == repeat.key))  # one that is over
            values = {"key": repeat.key, "body": repeat.body, "signup_id": id}
            connection.execute(insert(idempotency).values(**values, created_at=now()))
    return ids


_SUPPRESSED = select(suppressions.c.recipient_hash, suppressions.c.site, suppressions.c.reason).where(
    suppressions.c.recipient_hash.in_(bindparam("hashes", expanding=True))
)
_CONFIRMED = (
    select(signups.c.recipient_hash, signups.c.site)
    .where(signups.c.recipient_hash.in_(bindparam("hashes", expanding=True)), signups.c.status == "confirmed")
    .distinct()
)


def _standings(connection: Connection, entries: Sequence[_Entry]) -> Mapping[tuple[str, str], _Standing]:
    """By site and hash of the address. What applies to all sites counts for each."""
    asked = {"hashes": list({entry.row["recipient_hash"] for entry in entries})}
    confirmed = {(row.site, row.recipient_hash) for row in connection.execute(_CONFIRMED, asked)}
    why = {(row.site, row.recipient_hash): row.reason for row in connection.execute(_SUPPRESSED, asked)}
    found: dict[tuple[str, str], _Standing] = {}
    for entry in entries:
        place = (entry.site.slug, entry.row["recipient_hash"])
        found[place] = _Standing(place in confirmed, why.get(("", place[1])) or why.get(place))
    return found


def _answer(connection: Connection, entry: _Entry) -> int | _Full | Exception | None:
    """What is answered without writing anything; None where the signup is taken."""
    gate, site, visit = entry.gate, entry.site, entry.visit
    for limit, name in _rules(gate, site, visit):
        if not gate.hit(connection, limit, name):
            return _Full(name, gate.seconds_left(connection, limit, name))
    if visit.repeat and (before := _before(connection, visit.repeat)) is not None:
        return before
    everybody = _all_of(gate, site)
    if not _proven(connection, entry, everybody):
        return ProofRequired()
    if not gate.hit(connection, site.signup.site_limit, everybody):
        return _Full(everybody, gate.seconds_left(connection, site.signup.site_limit, everybody))
    return None


def _before(connection: Connection, repeat: Repeat) -> int | KeyReused | None:
    query = select(idempotency.c.body, idempotency.c.signup_id).where(
        idempotency.c.key == repeat.key, idempotency.c.created_at > now() - REPEAT_SECONDS
    )
    if (row := connection.execute(query).first()) is None:
        return None
    return int(row.signup_id) if row.body == repeat.body else KeyReused()


def _proven(connection: Connection, entry: _Entry, everybody: str) -> bool:
    """Whether nothing is asked for, or what was shown is good and new. Who is taken for spam learns nothing here."""
    gate, visit = entry.gate, entry.visit
    if visit.spam or not _wants_proof(connection, gate, entry.site, everybody):
        return True
    return visit.proof is not None and gate.hit(connection, limits.PROOF, gate.name("proof", visit.proof))


def _wants_proof(connection: Connection, gate: Gate, site: Site, everybody: str) -> bool:
    if not gate.enabled:
        return False
    return site.signup.proof_of_work or gate.used(connection, site.signup.site_limit, everybody, limits.ATTACK)


async def proof_wanted(database: Database, gate: Gate, site: Site) -> bool:
    """Whether `site` asks for a proof of work: always, or now, for it is under attack. Raises DatabaseUnavailable."""
    return await database.read(_wants_proof, gate, site, _all_of(gate, site))


def _decide(connection: Connection, entry: _Entry, standing: _Standing) -> list[store.Mail]:
    """What becomes of each mail of this signup; sets the signup's status."""
    asks = standing.suppressed is not None or (entry.site.signup.double_opt_in and not standing.confirmed)
    kind = "confirm" if asks else next(kind for kind in entry.visitor if kind != "confirm")
    entry.row.update(status=_status(entry, asks), spam=entry.visit.spam)
    waits = entry.row["status"] in ("unconfirmed", "spam")
    state, reply = "awaiting", None
    if not entry.visit.spam:
        reply = _reason_to_keep(connection, entry, kind, standing)
        state = "suppressed" if reply else "pending"
    notices = [
        store.Mail("notice", notice, to_visitor=False, state="awaiting" if waits else "pending")
        for notice in entry.notices
    ]
    return [store.Mail(kind, entry.visitor[kind], to_visitor=True, state=state, reply=reply), *notices]


def _status(entry: _Entry, asks: bool) -> str:
    if entry.visit.spam:
        return "spam"
    if not entry.site.signup.double_opt_in:
        return "accepted"
    return "unconfirmed" if asks else "confirmed"


def _reason_to_keep(connection: Connection, entry: _Entry, kind: str, standing: _Standing) -> str | None:
    """Why this mail is not sent; None where it is. Each time the same statements: time must not tell."""
    gate, email, hashed = entry.gate, entry.row["email"], entry.row["recipient_hash"]
    which = kind if standing.suppressed is None else "again"
    some = gate.hit(connection, limits.MAILS[which], gate.name(which, entry.site.slug, hashed))
    all_together = gate.hit(
        connection, limits.RECIPIENT, gate.name("recipient", limits.canonical(email)), cost=1 if some else 0
    )
    if standing.suppressed == "bounced":
        return "its mail server said that there is no such address"
    if not some:
        return f"held back: {limits.MAILS[which]} of this kind"
    return None if all_together else f"held back: {limits.RECIPIENT} to one address"


# -- confirming, and wanting no more -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pending:
    """A signup as a page to confirm it needs it."""

    site: str
    status: str


_FOUND = select(
    signups.c.id, signups.c.site, signups.c.email, signups.c.recipient_hash, signups.c.status, signups.c.confirmed_at
).where(signups.c.key == bindparam("named"))


def _find(connection: Connection, key: str) -> Any:
    return connection.execute(_FOUND, {"named": key}).first()


async def pending(database: Database, key: str) -> Pending | None:
    """The signup that a link names; None where it is gone. Raises DatabaseUnavailable."""
    row = await database.read(_find, key)
    return None if row is None else Pending(row.site, row.status)


async def confirm(database: Database, receptions: Mapping[str, Reception], key: str) -> bool:
    """The visitor has confirmed: the owner is told, the visitor greeted, and may be written to again.

    All that came from this address at this site counts as confirmed. Again changes nothing. False where the signup is
    gone. Raises DatabaseUnavailable.
    """
    row = await database.read(_find, key)
    if row is None:
        return False
    reception = receptions.get(row.site)
    message = None if reception is None else to_visitor(reception, "welcome", row.email, row.recipient_hash)
    with tracing.span("signup.confirm", site=row.site, signup_id=row.id):
        welcome = None if message is None else _answering("welcome", row, message)
        changed = await database.transact(_confirm, key, welcome)
    if changed:
        metrics.confirmed(row.site)
        _log.info("signup.confirmed", signup_id=row.id, site=row.site)
    return True


def _answering(kind: str, row: Any, message: Message) -> store.Addressed:
    """A mail to the visitor of a signup (a row of `_FOUND`), for what he did just now."""
    return store.Addressed(row.site, row.id, store.Mail(kind, message, to_visitor=True), tracing.current())


def _confirm(connection: Connection, key: str, welcome: store.Addressed | None) -> bool:
    row = connection.execute(_FOUND.with_for_update(), {"named": key}).first()
    if row is None or row.confirmed_at is not None or row.status == "spam":
        return False
    same = (signups.c.site == row.site) & (signups.c.recipient_hash == row.recipient_hash)
    waiting = select(signups.c.id).where(same & (signups.c.status == "unconfirmed"))
    connection.execute(
        update(outbox)
        .where(outbox.c.signup_id.in_(waiting), outbox.c.state == "awaiting")
        .values(state="pending", due_at=now())
    )
    connection.execute(
        update(signups).where(same & (signups.c.status == "unconfirmed")).values(status="confirmed", confirmed_at=now())
    )
    connection.execute(update(signups).where(signups.c.id == row.id).values(confirmed_at=now()))
    # Where a mail was answered, an address lives; and who asks to be written to is.
    connection.execute(
        delete(suppressions).where(
            suppressions.c.recipient_hash == row.recipient_hash, suppressions.c.site.in_(["", row.site])
        )
    )
    announce(connection)
    if welcome is not None:
        store.add(connection, [welcome])
    return True


async def ask_again(database: Database, gate: Gate, receptions: Mapping[str, Reception], key: str) -> bool:
    """Writes another mail that asks to confirm, for a link that is too old; as often as limits allow.

    False where the signup, or its site, is gone. Raises DatabaseUnavailable.
    """
    row = await database.read(_find, key)
    reception = receptions.get(row.site) if row else None
    if row is None or reception is None:
        return False
    message = to_visitor(reception, "confirm", row.email, row.recipient_hash, key)
    with tracing.span("signup.ask_again", site=row.site, signup_id=row.id):
        return await database.transact(_ask_again, gate, key, _answering("confirm", row, message))


def _ask_again(connection: Connection, gate: Gate, key: str, mail: store.Addressed) -> bool:
    # Once more: it may have been removed, or confirmed, since the mail was made for it.
    row = connection.execute(_FOUND.with_for_update(), {"named": key}).first()
    if row is None:
        return False
    found = {one.site: one.reason for one in connection.execute(_SUPPRESSED, {"hashes": [row.recipient_hash]})}
    suppressed = found.get("") or found.get(row.site)
    if row.status == "spam" or row.confirmed_at is not None or suppressed == "bounced":
        return True
    # The same allowance as after a new signup: who wanted no more is asked once a week, whoever has an old link.
    which = "again" if suppressed else "confirm"
    some = gate.hit(connection, limits.MAILS[which], gate.name(which, row.site, row.recipient_hash))
    name = gate.name("recipient", limits.canonical(row.email))
    if some and gate.hit(connection, limits.RECIPIENT, name):
        store.add(connection, [mail])
    return True


async def unsubscribe(database: Database, site: str, recipient_hash: str) -> None:
    """This address gets no more mail from `site`, also none that is written already. Raises DatabaseUnavailable."""
    cancelled = await database.transact(_unsubscribe, site, recipient_hash)
    metrics.unsubscribed(site)
    _log.info("signup.unsubscribed", site=site, cancelled=cancelled)


def _unsubscribe(connection: Connection, site: str, hashed: str) -> int:
    store.suppress(connection, hashed, "unsubscribed", site=site)
    theirs = (outbox.c.recipient_hash == hashed) & (outbox.c.site == site)
    ended = connection.execute(
        update(outbox)
        .where(theirs, outbox.c.state.in_(["pending", "awaiting"]))
        .values(state="cancelled", reply="unsubscribed", settled_at=now(), lease_owner=None, lease_until=None)
    )
    return ended.rowcount
