"""What a signup means: which fields a site's form has, and which mails an accepted one sends.

`register` writes the signup and its mails in one transaction. Knows no HTTP and no SMTP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parseaddr

from sqlalchemy import Connection, insert

from server import log, metrics
from server.db import Database
from server.db.tables import now, signups
from server.form import Form, Value, form_model, sample
from server.mail.message import Body, Frame
from server.mail.templates import TemplateProblem, Templates
from server.outbox import store
from server.site import Site, SiteError, mailbox

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Reception:
    """A site as a signup meets it: what it asks for, and what it sends. Built at start, immutable.

    `sender` is the From of its mails, `frame` what they share. `welcome` says the same to everybody. `about` is what
    a mail may tell of the site.
    """

    site: Site
    form: type[Form]
    templates: Templates
    about: Mapping[str, object]
    sender: str
    frame: Frame
    welcome: Body


def reception(site: Site, *, base_url: str, mail_from: str | None) -> Reception:
    """Everything that a signup needs of `site`, compiled and tried out.

    `mail_from` stands in where the site names no sender. Raises SiteError: no sender, or a broken template.
    """
    sender = _sender(site, mail_from)
    # Message-IDs are on the site's own domain, else on its sender's.
    frame = Frame(sender, site.hosts[0] if site.hosts else parseaddr(sender)[1].rpartition("@")[2])
    form, templates, about = form_model(site), Templates(site.emails), _about(site, base_url)
    problems = [f"{file}: is no template's name" for file in templates.strangers()]
    notices = [_notice(site, about, sample(site, form, full)) for full in (True, False)]
    for kind, values in [("welcome", _welcome(about)), *(("notice", notice) for notice in notices)]:
        try:
            templates.check(kind, values)
        except TemplateProblem as problem:
            problems.append(str(problem))
    if problems:
        raise SiteError(list(dict.fromkeys(problems)))
    metrics.signed_up(site.slug, 0)
    return Reception(site, form, templates, about, sender, frame, Body(templates.render("welcome", _welcome(about))))


def _sender(site: Site, mail_from: str | None) -> str:
    sender = site.mail.sender or mail_from
    if sender is None:
        file = site.folder / "site.toml"
        raise SiteError([f"{file}: mail.from is missing, and DOORBELL_MAIL_FROM is not set: a relay needs a sender"])
    try:
        return mailbox(sender)
    except ValueError as error:  # site.toml's own was checked when it was read
        raise SiteError([f"DOORBELL_MAIL_FROM: {error}"]) from None


@dataclass(frozen=True, slots=True)
class _Entry:
    """A signup and its mails, as they are written."""

    site: str
    row: dict[str, object]
    mails: list[store.Mail]


async def register(database: Database, reception: Reception, form: Form) -> int:
    """Writes the signup and its mails, all or nothing, and answers the signup's id.

    After it returns they survive a crash. Raises DatabaseUnavailable; then nothing was written.
    """
    site = reception.site.slug
    row: dict[str, object] = {"site": site, "email": form.email, "name": form.name, "fields": form.answers}
    entry = _Entry(site, row, _mails(reception, form))
    signup_id = await database.join(_write, entry)
    metrics.signed_up(site)
    _log.info("signup.accepted", signup_id=signup_id, site=site, mails=len(entry.mails))
    return signup_id


_ADD = insert(signups).values(created_at=now()).returning(signups.c.id, sort_by_parameter_order=True)


def _write(connection: Connection, entries: Sequence[_Entry]) -> Sequence[int]:
    """The signups of those who came at the same time, and all their mails; answers their ids."""
    ids = connection.execute(_ADD, [entry.row for entry in entries]).scalars().all()
    mails = [
        store.Addressed(entry.site, id, mail) for entry, id in zip(entries, ids, strict=True) for mail in entry.mails
    ]
    store.add(connection, mails)
    return ids


# -- mails ---------------------------------------------------------------------------------------------------------


def _about(site: Site, base_url: str) -> dict[str, object]:
    url = f"https://{site.hosts[0]}/" if site.hosts else f"{base_url}/{site.slug}/"
    return {"title": site.title, "locale": site.locale, "url": url, "accent": site.colors.accent}


def _welcome(about: Mapping[str, object]) -> dict[str, object]:
    """What a welcome may speak of: nothing that the visitor wrote, so it can repeat none. Whoever types another's
    address must not be able to send them a text of his own."""
    return {"site": dict(about)}  # a template is code, and could change it


def _notice(site: Site, about: Mapping[str, object], form: Form) -> dict[str, object]:
    """What an owner's notice may speak of."""
    fields = [{"name": name, "label": site.label(name), "value": _shown(value)} for name, value in form.answers.items()]
    received = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"site": dict(about), "email": form.email, "name": form.name, "fields": fields, "received": received}


def _shown(value: Value) -> str | None:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def _mails(reception: Reception, form: Form) -> list[store.Mail]:
    fill = reception.frame.fill
    mails = [store.Mail("welcome", fill(reception.welcome, form.email), to_visitor=True)]
    if owners := reception.site.mail.notify:
        notice = Body(reception.templates.render("notice", _notice(reception.site, reception.about, form)))
        mails += [store.Mail("notice", fill(notice, owner, reply_to=form.email), to_visitor=False) for owner in owners]
    return mails
