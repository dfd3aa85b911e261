"""What a signup means: which fields a site's form has, and which mails an accepted one sends.

`register` writes the signup and its mails in one transaction. Knows no HTTP and no SMTP.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.utils import parseaddr
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, create_model
from sqlalchemy import Connection, insert

from server import log, metrics
from server.db import Database
from server.db.tables import now, signups
from server.mail.message import Body, Frame
from server.mail.templates import TemplateProblem, Templates
from server.outbox import store
from server.site import FormField, Site, SiteError, address, mailbox

_log = log.get(__name__)

Value = str | bool | None


class Form(BaseModel):
    """What every site's form has; `form_model` adds what the site declares. Undeclared fields are dropped."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    email: str
    name: str | None = None

    @property
    def answers(self) -> dict[str, Value]:
        """The declared fields, by their names."""
        return self.model_dump(by_alias=True, exclude={"email", "name"})


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
    samples = [_notice(site, about, _sample(site, form, full)) for full in (True, False)]
    for kind, values in [("welcome", _welcome(about)), *(("notice", sample) for sample in samples)]:
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


def _sample(site: Site, form: type[Form], full: bool) -> Form:
    values: dict[str, object] = {"email": "visitor@example.com", "name": "A Visitor" if full else None}
    for name, field in site.signup.fields.items():
        if full or field.required:
            values[name] = _example(field)
    return form.model_validate(values)


def _example(field: FormField) -> object:
    examples: dict[str, object] = {
        "email": "someone@example.com",
        "tel": "+44 20 7946 0000",
        "number": "3",
        "date": "2026-01-31",
        "checkbox": "on",
    }
    if field.type == "select":
        return field.choices[0]
    return examples.get(field.type, "Some words"[: field.limit])


# -- fields --------------------------------------------------------------------------------------------------------


def _blank_is_absent(value: object) -> object:
    """A form sends an empty field as an empty string: that is no answer, not an answer that is empty."""
    return None if isinstance(value, str) and not value.strip() else value


def _required(value: object) -> object:
    if _blank_is_absent(value) is None:
        raise ValueError("This field is required.")
    return value


# Marks of writing direction: unseen, they come along where a number or a name is pasted, and turn text around.
_DIRECTIONS = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])


# Unicode promises that these categories (Cc, Cs, and Zl with Zp) never change.
_CONTROLS = r"\x00-\x1f\x7f-\x9f"
_NOT_IN_LINE = re.compile(rf"[{_CONTROLS}\u2028\u2029]")
_NOT_IN_LINES = re.compile(rf"(?![\t\n])[{_CONTROLS}]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def _line(value: str) -> str:
    value = unicodedata.normalize("NFC", value.translate(_DIRECTIONS).strip())
    if _NOT_IN_LINE.search(value):
        raise ValueError("This must be one line, without control characters.")
    return value


def _lines(value: str) -> str:
    # Browsers send a textarea's line breaks as CRLF, and count them as one character (as maxlength does).
    # Form feeds and vertical tabs are line breaks in what is pasted from a PDF or a slide.
    value = re.sub(r"\r\n?|[\v\f]", "\n", unicodedata.normalize("NFC", value.strip()))
    if _NOT_IN_LINES.search(value):
        raise ValueError("This must not hold control characters.")
    return value


def _longest(limit: int, value: str) -> str:
    if len(value) > limit:
        raise ValueError(f"This must have at most {limit} characters; it has {len(value)}.")
    return value


def _address(value: str) -> str:
    try:
        if len(value.strip()) > 254:  # the check's own refusal would quote all of it
            raise ValueError("It has more than 254 characters.")
        return address(value.strip())
    except ValueError as error:
        raise ValueError(f"This is not a valid e-mail address. {error}") from None


def _telephone(value: str) -> str:
    if not re.fullmatch(r"(?=(.*[0-9]){3})[0-9+()./ -]+", value):
        raise ValueError("This is not a telephone number.")
    return value


def _number(value: object) -> object:
    number = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(
        r"[+-]?([0-9]+([.,][0-9]+)?|[.,][0-9]+)([eE][+-]?[0-9]{1,3})?", number
    ):
        raise ValueError("This is not a number.")
    return number


def _date(value: str) -> str:
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
            raise ValueError
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise ValueError("This is not a date like 2026-01-31.") from None


def _ticked(value: object) -> object:
    if _blank_is_absent(value) is None:
        return False
    answers = {"on": True, "true": True, "1": True, "yes": True, "off": False, "false": False, "0": False, "no": False}
    return answers.get(value.strip().lower(), value) if isinstance(value, str) else value


def _must_tick(value: bool) -> bool:
    if not value:
        raise ValueError("This must be ticked.")
    return value


def _unicode(value: str) -> str:
    # Half a surrogate pair, which JSON can escape, has no UTF-8: it would raise where it is stored or answered.
    if _SURROGATES.search(value):
        raise ValueError("This holds characters that are not valid.")
    return value


_Text = Annotated[str, StringConstraints(strict=True), AfterValidator(_unicode)]

_CHECKS: Mapping[str, tuple[Any, ...]] = {
    "text": (_Text, AfterValidator(_line)),
    "textarea": (_Text, AfterValidator(_lines)),
    "email": (_Text, AfterValidator(_address)),
    "tel": (_Text, AfterValidator(_line), AfterValidator(_telephone)),
    "number": (_Text, BeforeValidator(_number)),
    "date": (_Text, AfterValidator(_date)),
}


def _annotation(field: FormField) -> Any:
    """The pydantic type of a declared field's value."""
    if field.type == "checkbox":
        ticked = Annotated[bool, BeforeValidator(_ticked)]
        return Annotated[ticked, AfterValidator(_must_tick)] if field.required else ticked
    if field.type == "select":
        base: Any = Literal[field.choices]
    else:
        kind, *checks = _CHECKS[field.type]
        base = kind
        for check in checks:
            base = Annotated[base, check]
        base = Annotated[base, AfterValidator(partial(_longest, field.limit))]
    if field.required:
        return Annotated[base, BeforeValidator(_required)]
    return Annotated[base | None, BeforeValidator(_blank_is_absent)]


def _absent(field: FormField) -> Any:
    if field.required:
        return ...
    return False if field.type == "checkbox" else None


def form_model(site: Site) -> type[Form]:
    """The model of the site's form: what is declared, nothing else. An absent optional field is None or False."""
    email = FormField(type="email", required=True)
    name = FormField(max=100)
    fields: dict[str, Any] = {"email": (_annotation(email), ...), "name": (_annotation(name), None)}
    for key, field in site.signup.fields.items():
        # Behind an alias: a field may be called `copy` or `model_dump`, like something that a model itself has.
        fields[f"field_{key}"] = (_annotation(field), Field(_absent(field), alias=key))
    return create_model(f"Form_{site.slug}", __base__=Form, **fields)
