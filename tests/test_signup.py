import json
import sqlite3
import unicodedata
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest
import structlog.testing
from pydantic import ValidationError

from server.db import Database
from server.form import form_model
from server.limits import Gate
from server.settings import Settings
from server.signing import Keys
from server.signup import Reception, reception, register
from server.site import SiteError, load
from tests.conftest import EVERY_FIELD, ON_SQLITE, SITE_TOML, add_site, keeping, rows

VISITOR = "visitor@example.com"
KEYS = Keys(["a secret of some length"])
GATE = Gate(KEYS)


def site_of(folder: Path, toml: str, emails: dict[str, str] | None = None) -> Reception:
    site = add_site(folder, "forms", toml)
    (site / "emails").mkdir()
    for name, text in (emails or {}).items():
        (site / "emails" / name).write_text(text)
    return reception(load(site), base_url="http://localhost:8000", mail_from=None, keys=KEYS)


def kept(tmp_path: Path, kind: str, value: object, more: str = "") -> object:
    """What is kept of `value` in a field of this type; `more` is added to its declaration."""
    toml = f'title = "F"\n[signup.fields.x]\ntype = "{kind}"\n{more}\n'
    form = form_model(load(add_site(tmp_path, "forms", toml)))
    return form.model_validate({"email": VISITOR, "x": value}).answers["x"]


# -- fields --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "typed", "value"),
    [
        ("text", "  O'Brien-Müller  ", "O'Brien-Müller"),
        ("text", "Zoe\u0308 🐕‍🦺", "Zoë 🐕‍🦺"),
        ("text", "\u202eolleH\u202c", "olleH"),
        ("text", "می\u200cخواهم", "می\u200cخواهم"),
        ("text", "{{7*7}} <b>", "{{7*7}} <b>"),
        ("textarea", "one\r\ntwo\rthree\n\n four ", "one\ntwo\nthree\n\n four"),
        ("textarea", "one\x0ctwo\x0bthree", "one\ntwo\nthree"),
        ("textarea", "a\tb", "a\tb"),
        ("email", " Ann+x@EXAMPLE.com ", "Ann+x@example.com"),
        ("tel", "+44 (0)20 7946-0000", "+44 (0)20 7946-0000"),
        ("tel", "\u202a+49 30/123.45\u202c", "+49 30/123.45"),
        ("number", "3", "3"),
        ("number", " -1.5e3 ", "-1.5e3"),
        ("number", ".5", ".5"),
        ("number", "1,5", "1,5"),
        ("number", "1E5", "1E5"),
        ("number", 3, "3"),
        ("number", 1e300, "1e+300"),
        ("number", 2.5, "2.5"),
        ("date", "2026-02-28", "2026-02-28"),
        ("checkbox", "on", True),
        ("checkbox", "YES", True),
        ("checkbox", True, True),
        ("checkbox", "off", False),
        ("checkbox", False, False),
    ],
)
def test_value_is_kept(tmp_path: Path, kind: str, typed: object, value: object) -> None:
    assert kept(tmp_path, kind, typed) == value


@pytest.mark.parametrize("kind", ["text", "textarea", "email", "tel", "number", "date"])
@pytest.mark.parametrize("blank", ["", "  ", "\r\n", None])
def test_blank_is_no_answer(tmp_path: Path, kind: str, blank: str | None) -> None:
    assert kept(tmp_path, kind, blank) is None


@pytest.mark.parametrize("blank", ["", " ", None])
def test_blank_checkbox_is_not_ticked(tmp_path: Path, blank: str | None) -> None:
    assert kept(tmp_path, "checkbox", blank) is False


@pytest.mark.parametrize(
    ("kind", "typed", "said"),
    [
        ("text", "a\nb", "one line"),
        ("text", "a\x00b", "one line"),
        ("text", "a\u2028b", "one line"),
        ("text", "a" * 201, "at most 200 characters; it has 201"),
        ("text", "\ud800", "characters that are not valid"),
        ("text", 5, "valid string"),
        ("text", ["a"], "valid string"),
        ("textarea", "a\x00b", "control characters"),
        ("textarea", "a" * 5001, "at most 5000"),
        ("textarea", "\udfff", "characters that are not valid"),
        ("email", "nobody", "not a valid e-mail address"),
        ("email", "\ud800@example.com", "characters that are not valid"),
        ("email", "a" * 60_000, "more than 254 characters"),
        ("tel", "call me", "not a telephone number"),
        ("tel", "12", "not a telephone number"),
        ("tel", "1" * 41, "at most 40"),
        ("number", "three", "not a number"),
        ("number", "NaN", "not a number"),
        ("number", "1_000", "not a number"),
        ("number", "１２", "not a number"),
        ("number", ".", "not a number"),
        ("number", "-Infinity", "not a number"),
        ("number", float("inf"), "not a number"),
        ("number", True, "not a number"),
        ("number", [], "not a number"),
        ("number", "\ud800", "not a number"),
        ("number", "1e99999999999999999999", "not a number"),
        ("number", 10**4000, "at most 40"),
        ("date", "31.01.2026", "not a date like 2026-01-31"),
        ("date", "2026-02-30", "not a date like"),
        ("date", "٢٠٢٦-01-01", "not a date like"),
        ("date", "20260131", "not a date like"),
        ("checkbox", "perhaps", "valid boolean"),
        ("checkbox", [], "valid boolean"),
    ],
)
def test_value_is_refused(tmp_path: Path, kind: str, typed: object, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        kept(tmp_path, kind, typed)
    (error,) = caught.value.errors()
    assert error["loc"][0] == "x"
    assert said in error["msg"]


@pytest.mark.parametrize(
    ("kind", "categories", "but"), [("text", {"Cc", "Cs", "Zl", "Zp"}, ""), ("textarea", {"Cc", "Cs"}, "\t\n\v\f\r")]
)
def test_controls_and_half_pairs_are_refused_and_nothing_else(
    tmp_path: Path, kind: str, categories: set[str], but: str
) -> None:
    form = form_model(load(add_site(tmp_path, "forms", f'title = "F"\n[signup.fields.x]\ntype = "{kind}"\n')))
    refused = {"Cc", "Cs", "Zl", "Zp"}
    for char in (char for char in map(chr, range(0x110000)) if unicodedata.category(char) in refused):
        try:
            form.model_validate({"email": VISITOR, "x": f"a{char}b"})
            taken = True
        except ValidationError:
            taken = False
        assert taken == (unicodedata.category(char) not in categories or char in but), hex(ord(char))
    others = [char for char in map(chr, range(0x110000)) if unicodedata.category(char) not in refused]
    for start in range(0, len(others), 90):
        form.model_validate({"email": VISITOR, "x": "".join(others[start : start + 90])})


def test_line_break_of_a_textarea_counts_as_one(tmp_path: Path) -> None:
    assert kept(tmp_path, "textarea", "a\r\nb\r\nc", "max = 5") == "a\nb\nc"


def test_max_counts_characters_not_bytes(tmp_path: Path) -> None:
    assert kept(tmp_path, "text", "ü🐕", "max = 2") == "ü🐕"


@pytest.mark.parametrize(("typed", "value"), [("Red", "Red"), ("", None), (None, None)])
def test_choice(tmp_path: Path, typed: str | None, value: str | None) -> None:
    assert kept(tmp_path, "select", typed, 'choices = ["Red"]') == value


@pytest.mark.parametrize("typed", ["red", "Red ", "Blue", "\ud800", 1, [], {}, True])
def test_no_choice(tmp_path: Path, typed: object) -> None:
    with pytest.raises(ValidationError, match=r"literal_error|string_unicode"):
        kept(tmp_path, "select", typed, 'choices = ["Red"]')


@pytest.mark.parametrize("kind", ["text", "textarea", "email", "tel", "number", "date", "checkbox"])
@pytest.mark.parametrize("blank", ["", "  ", None])
def test_required_and_blank(tmp_path: Path, kind: str, blank: str | None) -> None:
    with pytest.raises(ValidationError, match=r"This field is required|This must be ticked"):
        kept(tmp_path, kind, blank, "required = true")


def test_required_and_absent(tmp_path: Path) -> None:
    form = form_model(load(add_site(tmp_path, "bikes", SITE_TOML)))
    with pytest.raises(ValidationError) as caught:
        form.model_validate({})
    assert [(error["loc"], error["type"]) for error in caught.value.errors()] == [
        (("email",), "missing"),
        (("colour",), "missing"),
    ]


def test_undeclared_fields_are_dropped(tmp_path: Path) -> None:
    form = form_model(load(add_site(tmp_path, "bikes", SITE_TOML)))
    made = form.model_validate({"email": VISITOR, "colour": "Red", "utm": "x", "field_colour": "Green"})
    assert made.answers == {"colour": "Red", "message": None}


@pytest.mark.parametrize("name", ["copy", "json", "schema", "model_dump", "model_config", "answers", "items", "site_"])
def test_field_may_be_called_like_anything(tmp_path: Path, name: str) -> None:
    form = form_model(load(add_site(tmp_path, "forms", f'title = "F"\n[signup.fields.{name}]\ntype = "text"')))
    assert form.model_validate({"email": VISITOR, name: "yes"}).answers == {name: "yes"}


# -- what is tried out at start ------------------------------------------------------------------------------------


def refused(tmp_path: Path, toml: str, emails: dict[str, str]) -> str:
    with pytest.raises(SiteError) as caught:
        site_of(tmp_path, toml, emails)
    return "\n".join(caught.value.problems)


FROM = 'title = "F"\n[mail]\nfrom = "f@forms.example"\n'


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("welcome.txt", "Hello {{ site.titel }}", "welcome.txt:1: "),
        ("welcome.html", "<p>\n{% if %}", "welcome.html:2: "),
        ("welcome.txt", "Dear {{ name }}", "welcome.txt:1: 'name' is undefined"),
        ("welcome.txt", "You wrote from {{ email }}", "'email' is undefined"),
        ("notice.subject.txt", " \n", "notice.subject.txt: renders to nothing"),
        ("notice.txt", "{{ name.upper() }}", "notice.txt:1: "),  # a visitor without a name
    ],
)
def test_broken_template_is_refused_by_name(tmp_path: Path, file: str, text: str, said: str) -> None:
    assert said in refused(tmp_path, FROM, {file: text})


def test_no_sender(tmp_path: Path) -> None:
    assert "mail.from is missing, and DOORBELL_MAIL_FROM is not set" in refused(tmp_path, 'title = "F"', {})


@pytest.mark.parametrize("sender", ["nobody", "Smith, Jones <a@b.example>", "ü@localhost", "{title} <x>"])
def test_sender_of_the_environment_that_is_none(tmp_path: Path, sender: str) -> None:
    site = load(add_site(tmp_path, "forms", 'title = "F"'))
    with pytest.raises(SiteError, match="DOORBELL_MAIL_FROM: "):
        reception(site, base_url="http://localhost:8000", mail_from=sender, keys=KEYS)


def test_own_sender_comes_before_that_of_the_environment(tmp_path: Path) -> None:
    site = load(add_site(tmp_path, "forms", FROM))
    assert reception(site, base_url="http://x", mail_from="g@forms.example", keys=KEYS).sender == "f@forms.example"


# -- register ------------------------------------------------------------------------------------------------------


@pytest.fixture
def environ(environ: dict[str, str], database_url: str) -> dict[str, str]:
    return keeping(environ, database_url)


@pytest.fixture
async def database(settings: Settings) -> Database:
    return Database(settings.database_url)


def mail(settings: Settings, kind: str) -> EmailMessage:
    ((data,),) = rows(settings, f"SELECT data FROM messages JOIN outbox ON outbox.id = outbox_id WHERE kind = '{kind}'")
    parsed = message_from_bytes(data, policy=default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def everything(message: EmailMessage) -> str:
    """All that a reader can get to see of a mail, decoded."""
    return "\n".join([*(f"{name}: {value}" for name, value in message.items()), bodies(message)])


def bodies(message: EmailMessage) -> str:
    return "\n".join(part.get_content() for part in message.walk() if not part.is_multipart())


async def sign_up(database: Database, at: Reception, **fields: object) -> int:
    try:
        return await register(database, GATE, at, at.form.model_validate({"email": VISITOR, **fields}))
    finally:
        await database.close()


MARKERS = {
    "name": "MARKname",
    "f_text": "MARKtext https://spam.example",
    "f_textarea": "MARKarea, MARKarea2",
    "f_email": "MARKemail@example.com",
    "f_tel": "+1-555-0100999",
    "f_number": "424242",
    "f_date": "2031-12-25",
    "f_checkbox": "on",
    "f_select": "Dark green",
}


async def test_signup_and_mails_are_one_row_each(tmp_path: Path, database: Database, settings: Settings) -> None:
    number = await sign_up(database, site_of(tmp_path, EVERY_FIELD), **MARKERS)
    ((id, site, email, name, fields),) = rows(settings, "SELECT id, site, email, name, fields FROM signups")
    assert (id, site, email, name) == (number, "forms", VISITOR, "MARKname")
    assert json.loads(fields) == {key: value for key, value in MARKERS.items() if key != "name"} | {"f_checkbox": True}
    assert rows(settings, "SELECT signup_id, kind, recipient, state FROM outbox ORDER BY id") == [
        (number, "welcome", VISITOR, "pending"),
        (number, "notice", "o@forms.example", "pending"),
    ]


async def test_welcome_repeats_nothing_of_the_visitor(tmp_path: Path, database: Database, settings: Settings) -> None:
    await sign_up(database, site_of(tmp_path, EVERY_FIELD), **MARKERS)
    welcome = everything(mail(settings, "welcome"))
    assert [word for text in MARKERS.values() for word in text.split() if word != "on" and word in welcome] == []


async def test_notice_holds_every_field(tmp_path: Path, database: Database, settings: Settings) -> None:
    await sign_up(database, site_of(tmp_path, EVERY_FIELD), **MARKERS)
    notice = mail(settings, "notice")
    for body in (notice.get_body(("plain",)), notice.get_body(("html",))):
        assert body is not None
        text = body.get_content()
        assert [value for value in [*MARKERS.values(), VISITOR] if value != "on" and value not in text] == []
        assert "F checkbox" in text and "yes" in text
    assert notice["Reply-To"] == VISITOR
    assert notice["To"] == "o@forms.example"


async def test_markup_in_a_field_is_text_in_the_notice(tmp_path: Path, database: Database, settings: Settings) -> None:
    await sign_up(database, site_of(tmp_path, EVERY_FIELD), name="{{7*7}}", f_text="<img src=x onerror=alert(1)>")
    notice = everything(mail(settings, "notice"))
    assert "{{7*7}}" in notice
    body = mail(settings, "notice").get_body(("html",))
    assert body is not None and "&lt;img src=x onerror=alert(1)&gt;" in body.get_content()


async def test_encoded_header_in_a_name_stays_text(tmp_path: Path, database: Database, settings: Settings) -> None:
    own = {"notice.subject.txt": "From {{ name }}"}
    at = site_of(tmp_path, EVERY_FIELD, own)
    await sign_up(database, at, name="=?utf-8?q?Hi=0D=0ABcc=3A_e=40x=2Ey?=")
    notice = mail(settings, "notice")
    assert notice["Bcc"] is None
    assert notice["Subject"] == "From =?utf-8?q?Hi=0D=0ABcc=3A_e=40x=2Ey?="


async def test_own_templates_are_used(tmp_path: Path, database: Database, settings: Settings) -> None:
    own = {
        "welcome.subject.txt": "Servus von {{ site.title }}",
        "welcome.txt": "Grüß Gott. {{ unsubscribe_url }}",
        "notice.html": '{% extends "base.html" %}{% block body %}<p>{{ email }}</p>{% endblock %}',
    }
    await sign_up(database, site_of(tmp_path, EVERY_FIELD, own))
    welcome, notice = mail(settings, "welcome"), mail(settings, "notice")
    assert (welcome["Subject"], "Grüß Gott." in everything(welcome)) == ("Servus von Forms", True)
    assert "Thank you" in everything(welcome)  # the HTML is still the built-in one
    assert f">{VISITOR}</p>" in everything(notice)


async def test_own_template_that_fails_on_real_data_costs_no_lead(
    tmp_path: Path, database: Database, settings: Settings
) -> None:
    own = {"notice.txt": "{{ 1 // (name|length - 4) if name else '' }}"}
    at = site_of(tmp_path, EVERY_FIELD, own)
    with structlog.testing.capture_logs() as logs:
        await sign_up(database, at, name="Four")
    body = mail(settings, "notice").get_body(("plain",))
    assert body is not None and "Four" in body.get_content()
    assert [line["event"] for line in logs] == ["template.failed", "signup.accepted"]
    assert "Four" not in str(logs)


async def test_notice_to_several_owners_says_the_same_to_each(
    tmp_path: Path, database: Database, settings: Settings
) -> None:
    toml = 'title = "F"\n[mail]\nfrom = "f@forms.example"\nnotify = ["o@forms.example", "p@forms.example"]\n'
    await sign_up(database, site_of(tmp_path, toml), name="MARKname")
    found = rows(
        settings,
        "SELECT recipient, message_id, data FROM outbox JOIN messages ON id = outbox_id"
        " WHERE kind = 'notice' ORDER BY id",
    )
    assert [recipient for recipient, _, _ in found] == ["o@forms.example", "p@forms.example"]
    (first, second) = [message_from_bytes(data, policy=default) for _, _, data in found]
    assert (first["To"], second["To"]) == ("o@forms.example", "p@forms.example")
    assert (first["Message-ID"], second["Message-ID"]) == tuple(identity for _, identity, _ in found)
    assert first["Message-ID"] != second["Message-ID"]
    assert first["Reply-To"] == second["Reply-To"] == VISITOR
    assert first.as_bytes().partition(b"\n\n")[2] == second.as_bytes().partition(b"\n\n")[2]


async def test_notices_of_two_visitors_have_nothing_of_each_other(
    tmp_path: Path, database: Database, settings: Settings
) -> None:
    at = site_of(tmp_path, EVERY_FIELD, {"notice.subject.txt": "From {{ name }}"})
    await sign_up(database, at, name="Alice")
    await sign_up(database, at, name="Bert")
    found = rows(settings, "SELECT data FROM outbox JOIN messages ON id = outbox_id WHERE kind = 'notice' ORDER BY id")
    first, second = (everything(message_from_bytes(data, policy=default)) for (data,) in found)
    assert ("Alice" in first, "Bert" in first) == (True, False)
    assert ("Alice" in second, "Bert" in second) == (False, True)


async def test_template_cannot_change_what_the_next_mail_says_of_the_site(
    tmp_path: Path, database: Database, settings: Settings
) -> None:
    own = {"notice.txt": "{{ site.update(title='changed') }}{{ site.title }}", "notice.subject.txt": "{{ site.title }}"}
    at = site_of(tmp_path, EVERY_FIELD, own)
    await sign_up(database, at)
    await sign_up(database, at)
    for (data,) in rows(settings, "SELECT data FROM outbox JOIN messages ON id = outbox_id WHERE kind = 'notice'"):
        assert message_from_bytes(data, policy=default)["Subject"] == "Forms"


async def test_welcome_is_made_once_and_again_only_with_the_site(
    tmp_path: Path, database: Database, settings: Settings
) -> None:
    site = add_site(tmp_path, "forms", FROM)
    (site / "emails").mkdir()
    for part in ("txt", "html"):
        (site / "emails" / f"welcome.{part}").write_text("{{ range(10 ** 15)|random }}")
    with (site / "site.toml").open("a") as toml:
        toml.write("[signup]\ndouble_opt_in = false\n")
    for _ in range(2):
        at = reception(load(site), base_url="http://localhost:8000", mail_from=None, keys=KEYS)
        await sign_up(database, at, email="a@example.com")
        await sign_up(database, at, email="b@example.com")
    found = [message_from_bytes(data, policy=default) for (data,) in rows(settings, "SELECT data FROM messages")]
    assert [mail["To"] for mail in found] == ["a@example.com", "b@example.com"] * 2
    assert len({mail["Message-ID"] for mail in found}) == 4
    first, second, third, fourth = map(bodies, found)
    assert first == second != third == fourth


async def test_without_notify_only_the_welcome(tmp_path: Path, database: Database, settings: Settings) -> None:
    await sign_up(database, site_of(tmp_path, FROM + "[signup]\ndouble_opt_in = false\n"))
    assert rows(settings, "SELECT kind FROM outbox") == [("welcome",)]


@ON_SQLITE  # for its triggers
@pytest.mark.parametrize("failing", ["signups", "outbox"])
async def test_second_insert_fails_and_nothing_is_kept(
    tmp_path: Path, database: Database, settings: Settings, failing: str
) -> None:
    rows(
        settings,
        f"CREATE TRIGGER full BEFORE INSERT ON {failing} WHEN {'1' if failing == 'signups' else 'NEW.kind = '}"
        f"{'' if failing == 'signups' else chr(39) + 'notice' + chr(39)} BEGIN SELECT RAISE(ABORT, 'full'); END",
    )
    with pytest.raises(Exception, match="full") as caught:
        await sign_up(database, site_of(tmp_path, EVERY_FIELD))
    assert isinstance(caught.value.__cause__, sqlite3.IntegrityError)
    assert rows(settings, "SELECT * FROM signups") == []
    assert rows(settings, "SELECT * FROM outbox") == []


async def test_title_that_is_no_plain_word_signs_mail_too(
    tmp_path: Path, database: Database, settings: Settings
) -> None:
    toml = 'title = "Smith, Jones & \\"Co\\" (Ltd) \\\\ Söhne"\n[signup]\ndouble_opt_in = false\n'
    site = load(add_site(tmp_path, "forms", toml))
    sender = '"Smith, Jones & \\"Co\\" (Ltd) \\\\ Söhne" <noreply@localhost>'
    await sign_up(database, reception(site, base_url="http://localhost:8000", mail_from=sender, keys=KEYS))
    welcome = mail(settings, "welcome")
    assert [box.display_name for box in welcome["From"].addresses] == [site.title]
