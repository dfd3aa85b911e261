"""The bytes that `compose` and `Frame.fill` make, read again by the standard library's two parsers: what was meant, and
nothing else."""

import email
import email.header
import email.message
import email.policy
import email.utils
import re
import time
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.mail.message import Body, Content, Frame, Message, compose, message_id, one_line

HEADERS = [
    *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"),
]
# Decodes to "Hi", a line break and a header "Bcc: e@x.y".
ENCODED_INJECTION = "=?utf-8?q?Hi=0D=0ABcc=3A_e=40x=2Ey?="

BOUNDARY = "=_doorbell_alternative"

# What mail and its readers trip over, between all else that there is.
AWKWARD = [
    *(
        "\r",
        "\n",
        "\r\n",
        "\0",
        "\t",
        " ",
        "  ",
        ".",
        "..",
        "\n.\n",
        "\r\n.\r\n",
        "\r.\r",
        "\n.a",
        " \n",
        "\t\r\n",
        "=",
        "=\n",
    ),
    *(
        "\x0b",
        "\x0c",
        "\x1c",
        "\x7f",
        "\x85",
        "\u2028",
        "\u2029",
        "\ufeff",
        "\u200b",
        "\u200c",
        "\u200d",
        "\u202e",
        "\u2066",
        "\u2069",
    ),
    *(
        "é",
        "e\u0301",
        "日本語",
        "👨‍👩‍👧",
        "=0D=0A",
        "=20",
        "=?",
        "?=",
        "=?utf-8?q?",
        ENCODED_INJECTION,
        "=?utf-8?b?SGkNCkJjYzogZUB4Lnk=?=",
    ),
    *(
        "x" * 75,
        "x" * 76,
        "x" * 77,
        "x" * 997,
        "x" * 2000,
        " " * 80,
        "é" * 80,
        "." * 80,
        ", " * 40,
        "From ",
        "\nFrom ",
        "\nBcc: e@x.y\n",
    ),
    *(f"--{BOUNDARY}\n", f"\n--{BOUNDARY}--\n", BOUNDARY, '"', "\\", "(", ")", "<e@x.y>", ",", ";", ":", "@"),
]


def mixed(alphabet: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.text(alphabet) | st.lists(st.sampled_from(AWKWARD) | st.text(alphabet, max_size=5)).map("".join)


patient = settings(deadline=None)  # whoever else uses the machine

# Everything but a lone surrogate, of which there is no such thing in the mail that arrives.
texts = mixed(st.characters(exclude_categories=["Cs"]))
anything = mixed(st.characters())


def composed(
    subject: str = "Hello",
    text: str = "text",
    html: str = "<p>html</p>",
    name: str = "Bike Shed",
    reply_to: str | None = None,
) -> Message:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return compose(
        Content(subject, text, html),
        sender=f'"{quoted}" <hello@bikes.example>',
        recipient="visitor@there.example",
        domain="bikes.example",
        reply_to=reply_to,
    )


def parsed(message: Message) -> email.message.EmailMessage:
    """Read strictly: no defect anywhere."""
    read = email.message_from_bytes(message.data, policy=email.policy.default)
    for part in read.walk():
        assert part.defects == []
    return read


def body(message: Message, kind: str) -> str:
    part = parsed(message).get_body((kind,))
    assert part is not None
    content = part.get_content()
    assert isinstance(content, str)
    old = {one.get_content_type(): one.get_payload(decode=True) for one in read_by_the_old(message).walk()}
    assert old[f"text/{kind}"] == content.encode()
    return content


def read_by_the_old(message: Message) -> email.message.Message:
    """By the parser that most programs in Python use."""
    return email.message_from_bytes(message.data, policy=email.policy.compat32)


def subject_of(message: Message) -> str:
    read = str(parsed(message)["Subject"])
    old = re.sub(r"\r\n(?=[ \t])", "", read_by_the_old(message)["Subject"])
    assert str(email.header.make_header(email.header.decode_header(old))) == read
    return read


def lines(text: str) -> str:
    """As a mail has it: one kind of line break, none at the end."""
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").replace("\n", "\r\n")


def sender_name(message: Message) -> str:
    """Not by the new parser: Python 3.11's leaves the space between two encoded words of a name."""
    name = read_by_the_old(message)["From"].rpartition("<")[0].strip()
    if name.startswith('"'):
        return email.utils.unquote(name)
    return str(email.header.make_header(email.header.decode_header(name)))


def assert_well_formed(message: Message, extra: tuple[str, ...] = ()) -> None:
    data = message.data
    rest = data.replace(b"\r\n", b"")
    assert b"\r" not in rest and b"\n" not in rest and data.endswith(b"\r\n")
    assert data.isascii() and b"\0" not in data
    assert max(len(line) for line in data.split(b"\r\n")) <= 998
    # Nothing that a server could take for the end, however it reads line breaks (SMTP smuggling).
    assert b"." not in data.split(b"\r\n")
    head = re.sub(rb"\r\n[ \t]+", b" ", data.partition(b"\r\n\r\n")[0])
    assert sorted(line.partition(b":")[0].decode() for line in head.split(b"\r\n")) == sorted([*HEADERS, *extra])


# -- the whole ---------------------------------------------------------------------------------------------------------


WHOLE = (
    'From: "Bike Shed" <hello@bikes.example>\r\n'
    "To: visitor@there.example\r\n"
    "Reply-To: owner@bikes.example\r\n"
    "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    "Date: Sat, 31 Jan 2026 12:00:00 +0000\r\n"
    "Message-ID: {identity}\r\n"
    "Auto-Submitted: auto-generated\r\n"
    "MIME-Version: 1.0\r\n"
    'Content-Type: multipart/alternative; boundary="=_doorbell_alternative"\r\n'
    "\r\n"
    "--=_doorbell_alternative\r\n"
    'Content-Type: text/plain; charset="utf-8"\r\n'
    "Content-Transfer-Encoding: quoted-printable\r\n"
    "\r\n"
    "In =3D plain text.=20\r\n"
    "=2E\r\n"
    "--=_doorbell_alternative\r\n"
    'Content-Type: text/html; charset="utf-8"\r\n'
    "Content-Transfer-Encoding: quoted-printable\r\n"
    "\r\n"
    "<p>In HTML=E2=80=93</p>\r\n"
    "--=_doorbell_alternative--\r\n"
)


def test_mail_is_what_was_meant() -> None:
    message = compose(
        Content("Grüße", "In = plain text. \n.\n", "<p>In HTML–</p>"),
        sender="Bike Shed <hello@bikes.example>",
        recipient="visitor@there.example",
        domain="www.bikes.example",
        reply_to="owner@bikes.example",
        date=datetime(2026, 1, 31, 12, 0, tzinfo=UTC),
    )
    assert message.data.decode("ascii") == WHOLE.format(identity=message.message_id)
    assert (message.sender, message.recipient) == ("hello@bikes.example", "visitor@there.example")
    types = ["multipart/alternative", "text/plain", "text/html"]
    assert [part.get_content_type() for part in parsed(message).walk()] == types
    assert [part.get_content_type() for part in read_by_the_old(message).walk()] == types
    assert (body(message, "plain"), body(message, "html")) == ("In = plain text. \r\n.", "<p>In HTML–</p>")
    assert_well_formed(message, extra=("Reply-To",))


def test_message_ids_differ_name_the_domain_and_come_in_order() -> None:
    found = [message_id("bikes.example") for _ in range(100)]
    assert len(set(found)) == 100
    times = [int(re.fullmatch(r"<([0-9a-f]{13,14})\.[0-9a-f]{16}@bikes\.example>", one)[1], 16) for one in found]  # type: ignore[index]
    assert times == sorted(times)


def test_date_is_now() -> None:
    written = email.utils.parsedate_to_datetime(parsed(composed())["Date"])
    assert abs((datetime.now(UTC) - written).total_seconds()) < 60


def test_date_is_that_of_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    for now, written in ((1e9 + 0.2, "01:46:40"), (1e9 + 0.9, "01:46:40"), (1e9 + 1, "01:46:41"), (1e9, "01:46:40")):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert parsed(composed())["Date"] == f"Sun, 09 Sep 2001 {written} +0000"


@pytest.mark.parametrize("sender", ["hello@bikes.example", "<hello@bikes.example>", ' "" <hello@bikes.example>'])
def test_sender_without_a_name(sender: str) -> None:
    message = compose(Content("a", "b", "c"), sender=sender, recipient="visitor@there.example", domain="bikes.example")
    assert message.data.startswith(b"From: hello@bikes.example\r\n")


# -- properties --------------------------------------------------------------------------------------------------------


@patient
@given(texts)
@example(ENCODED_INJECTION)
@example("x" * 500)
@example("a " * 300)
@example("é" * 300)
@example("a" * 58 + " " + "b" * 59 + " é")
@example("👨‍👩‍👧 " * 40)
@example("=?utf-8?b?" + "A" * 200)
def test_subject_is_read_as_it_was_written(subject: str) -> None:
    message = composed(subject=subject)
    assert_well_formed(message)
    assert subject_of(message) == one_line(subject)


@patient
@given(texts)
@example(ENCODED_INJECTION)
@example('Quote" <evil@x.example>, "')
@example("Long, long name, with commas; and <evil@x.example> in it, which a fold would tear out of its quotes")
@example("back\\slash\\")
@example("(comment)")
@example("é" * 200)
@example("a" * 61)
@example("word " * 300)
def test_sender_name_is_read_as_it_was_written(name: str) -> None:
    message = composed(name=name)
    assert_well_formed(message)
    [address] = parsed(message)["From"].addresses
    assert (sender_name(message), address.addr_spec) == (one_line(name), "hello@bikes.example")
    assert message.sender == "hello@bikes.example"


@patient
@given(texts, texts)
@example(".\n..\n.a\n \n\t\nFrom me\n--\n--=_", "=\n=0D=0A\n" + "x" * 2000)
@example("a\r\n.\r\nb\r.\rc\n.\nd", "\u2028\u2029\x85\x0b\x0c\x1c\0")
@example("trailing spaces   \nand tabs\t\n\n\n", "")
def test_bodies_are_read_as_they_were_written(text: str, html: str) -> None:
    message = composed(text=text, html=html)
    assert_well_formed(message)
    assert (body(message, "plain"), body(message, "html")) == (lines(text), lines(html))


@patient
@given(anything, anything, anything, anything)
@example("\ud800", "\udfff", "\ud83d", "\udc00")
def test_nothing_breaks_it(subject: str, name: str, text: str, html: str) -> None:
    message = composed(subject=subject, name=name, text=text, html=html)
    assert_well_formed(message)
    parsed(message)


@patient
@given(anything)
@example("\u202eevil\u2066\u200f\x00\x07\x1b[31m\u2028\ud800")
def test_one_line_is_one_printable_line(text: str) -> None:
    line = one_line(text)
    others = set(line) - {"\u200c", "\u200d"}  # these join
    assert not {unicodedata.category(char) for char in others} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert line == one_line(line) and line == line.strip() and "  " not in line


def test_one_line_keeps_what_people_write() -> None:
    for text in ("Ünïcode", "日本語", "Zoë & Søn", "👍🏽", "a=b?", "50 % <off>"):
        assert one_line(text) == text
    assert one_line("e\u0301") == "é"


# -- one frame and one body for many mails -----------------------------------------------------------------------------


@patient
@given(texts, texts, texts)
def test_body_that_is_used_again_says_the_same_to_each(subject: str, text: str, html: str) -> None:
    frame, content = Frame("Bike Shed <hello@bikes.example>", "bikes.example"), Body(Content(subject, text, html))
    mails = [frame.fill(content, f"{name}@there.example", reply_to=f"{name}@home.example") for name in ("a", "b")]
    for name, mail in zip(("a", "b"), mails, strict=True):
        assert_well_formed(mail, extra=("Reply-To",))
        assert (mail.sender, mail.recipient) == ("hello@bikes.example", f"{name}@there.example")
        read = parsed(mail)
        assert (read["To"], read["Reply-To"]) == (f"{name}@there.example", f"{name}@home.example")
        assert read["Message-ID"] == mail.message_id
        assert subject_of(mail) == one_line(subject)
        assert (body(mail, "plain"), body(mail, "html")) == (lines(text), lines(html))
    assert mails[0].message_id != mails[1].message_id


SAFE = "abXY019_-."
samples = st.text(SAFE, min_size=1, max_size=120).filter(lambda sample: sample[0] != ".")


@st.composite
def bodies_with_holes(draw: st.DrawFn) -> tuple[Content, Content, dict[str, str], dict[str, str]]:
    """A mail with samples, the same mail with values, the samples and the values."""
    names = draw(st.sampled_from([["a"], ["a", "b"], ["a", "b", "c"]]))
    # Far from anything else that there is, and from one another.
    ends = {name: f"{name}__{draw(samples)}__{name}" for name in names}
    values = {
        name: draw(st.text(SAFE, min_size=len(end), max_size=len(end)).filter(lambda value: value[0] != "."))
        for name, end in ends.items()
    }
    piece = texts | st.integers(0, 90).map("x".__mul__) | st.sampled_from(["\n", " ", "=", "é", "."])

    def part() -> tuple[str, str]:
        used = draw(st.permutations(names + draw(st.lists(st.sampled_from(names), max_size=3))))
        between = [draw(piece) for _ in range(len(used) + 1)]
        said = [
            "".join(f"{text}{one[name]}" for text, name in zip(between, used, strict=False)) for one in (ends, values)
        ]
        return said[0] + between[-1], said[1] + between[-1]

    text, html = part(), part()
    return Content("s", text[0], html[0]), Content("s", text[1], html[1]), ends, values


@patient
@given(bodies_with_holes())
def test_filled_body_says_what_it_would_with_the_values_written_into_it(
    made: tuple[Content, Content, dict[str, str], dict[str, str]],
) -> None:
    sample, meant, ends, values = made
    mail = Frame("hello@bikes.example", "bikes.example").fill(Body(sample, ends), "a@there.example", holes=values)
    assert_well_formed(mail)
    assert (body(mail, "plain"), body(mail, "html")) == (lines(meant.text), lines(meant.html))


@pytest.mark.parametrize("before", range(70, 78))
@pytest.mark.parametrize("sample", ["s", "sample"])
def test_hole_is_found_wherever_a_line_is_broken(before: int, sample: str) -> None:
    # A soft break may stand before it, after each of its characters, or the line end with it.
    value = "v" + "." * (len(sample) - 1)
    said = "x" * before + "\n" + "x" * (before - len(sample)) + sample + "\n" + "x" * before + sample + "x"
    filled = Frame("hello@bikes.example", "bikes.example").fill(
        Body(Content("s", said, said), {"link": sample}), "a@there.example", holes={"link": value}
    )
    assert_well_formed(filled)
    assert body(filled, "plain") == lines(said.replace(sample, value))


LINK = "https://bikes.example/confirm/SampleToken-1"


@pytest.mark.parametrize(
    ("text", "html", "why"),
    [
        ("nothing", LINK, "text"),
        (LINK, "nothing", "HTML"),
        (LINK, LINK.upper(), "HTML"),
        (LINK.lower(), LINK, "text"),
        (LINK, LINK.replace("-", "%2D"), "HTML"),
        (LINK, LINK.replace("T", "&#84;"), "HTML"),
        (LINK, LINK + " " + LINK.upper(), "another spelling"),
        (LINK, f"{LINK} {LINK.replace('-', '%2d')}", "another spelling"),
    ],
)
def test_link_that_would_be_the_same_in_every_mail_is_found_when_the_body_is_made(
    text: str, html: str, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        Body(Content("s", text, html), {"confirm": "SampleToken-1"})


def test_holes_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="within another"):
        Body(Content("s", "abcdef", "abcdef"), {"one": "abcd", "two": "cd"})


def test_sample_that_looks_like_an_encoded_character_is_told_from_one() -> None:
    filled = Body(Content("s", "= 3D é", "=3D 3D"), {"link": "3D"}).parts({"link": "xy"})
    assert b"=3D xy =C3=A9" in filled and b"=3Dxy xy" in filled


@pytest.mark.parametrize(
    "value", ["", "short", "x" * 14, "SampleToken=1", "SampleToken\n1", "SampleTokeñ-1", ".ampleToken-1"]
)
def test_value_that_does_not_fit_is_refused(value: str) -> None:
    said = Body(Content("s", LINK, LINK), {"confirm": "SampleToken-1"})
    for holes in ({"confirm": value}, {}):
        with pytest.raises(ValueError, match="13 plain characters"):
            said.parts(holes)


def test_unsubscribing_with_one_click_stands_in_the_header() -> None:
    url = "https://bikes.example/unsubscribe/" + "x" * 600
    said = Body(Content("s", "t", "h"))
    mail = Frame("hello@bikes.example", "bikes.example").fill(said, "a@there.example", unsubscribe=url)
    assert_well_formed(mail, extra=("List-Unsubscribe", "List-Unsubscribe-Post"))
    read = read_by_the_old(mail)
    assert (read["List-Unsubscribe"], read["List-Unsubscribe-Post"]) == (f"<{url}>", "List-Unsubscribe=One-Click")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "/unsubscribe/x",
            "javascript:alert(1)",
            "mailto:a@b.example",
            "https://b.example/a b",
            "https://b.example/é",
        ),
        *(
            "https://b.example/>, <https://evil.example/",
            "https://b.example/\r\nBcc: e@x.y",
            "https://b.example/" + "x" * 1000,
        ),
    ],
)
def test_link_that_no_header_may_hold_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        Frame("hello@bikes.example", "bikes.example").fill(
            Body(Content("s", "t", "h")), "a@there.example", unsubscribe=url
        )


def test_frame_that_is_used_again_keeps_nothing_of_a_mail() -> None:
    frame = Frame("hello@bikes.example", "bikes.example")
    frame.fill(Body(Content("First", "one", "one")), "a@there.example", reply_to="b@there.example")
    second = frame.fill(Body(Content("Second", "two", "two")), "c@there.example")
    assert_well_formed(second)
    assert b"First" not in second.data and b"one" not in second.data and b"b@there" not in second.data


def test_sender_or_domain_that_cannot_be_is_found_when_the_frame_is_made() -> None:
    for sender, domain in (
        ("hello", "x.example"),
        ("héllo@x.example", "x.example"),
        ("a@x.example", "x\r\nBcc: e@x.y"),
    ):
        with pytest.raises(ValueError):
            Frame(sender, domain)


def test_nothing_gets_into_a_body_but_through_its_encoding() -> None:
    with pytest.raises(TypeError):
        Body(Content("a", "b", "c"), subject="Subject: a\r\nBcc: e@x.y\r\n")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Frame("a@x.example", "x.example", origin="From: a\r\nBcc: e@x.y\r\n")  # type: ignore[call-arg]


# -- headers that somebody else wants ----------------------------------------------------------------------------------

INJECTIONS = [
    ENCODED_INJECTION,
    "Hi\r\nBcc: e@x.y",
    "Hi\nBcc: e@x.y",
    "Hi\rBcc: e@x.y",
    "Hi\r\n\r\n<p>body</p>",
    "Hi\r\n Bcc: e@x.y",
    "Hi\0\r\nBcc: e@x.y",
    "Hi\u2028Bcc: e@x.y",
    "Hi\x85Bcc: e@x.y",
    "Hi\x0bBcc: e@x.y",
    "=?utf-8?b?SGkNCkJjYzogZUB4Lnk=?=",
    "=?utf-8?q?=0D=0A?= =?utf-8?q?Bcc=3A_e=40x=2Ey?=",
    "a" * 70 + " " + ENCODED_INJECTION,
    "é " + ENCODED_INJECTION,
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_header_gets_in(text: str) -> None:
    message = composed(subject=text, name=text)
    assert_well_formed(message)
    read = parsed(message)
    assert read["Bcc"] is None
    assert subject_of(message) == one_line(text)
    assert [address.addr_spec for address in read["From"].addresses] == ["hello@bikes.example"]


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_header_gets_in_through_a_body(text: str) -> None:
    message = composed(text=text, html=text)
    assert_well_formed(message)
    assert len(list(parsed(message).walk())) == 3


BAD_ADDRESSES = [
    "",
    "visitor",
    "@there.example",
    "visitor@",
    "a b@there.example",
    "vïsitor@there.example",
    "visitor@thére.example",
    "visitor@there.example\r\nBcc: e@x.y",
    "visitor@there.example\n",
    "visitor@there.example>",
    "<visitor@there.example>",
    "a@b.example,e@x.example",
    "a@b.example e@x.example",
    "alice@there.example)bob@evil.example",
    "a@b.example(comment)",
    '"a b"@there.example',
    "visitor@[127.0.0.1]",
    "visitor\0@there.example",
    "visitor;@there.example",
    "group:visitor@there.example;",
    "a" * 65 + "@there.example",
    "visitor@" + "a" * 256,
]


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_address_that_could_be_read_otherwise_is_refused(address: str) -> None:
    content = Content("a", "b", "c")
    with pytest.raises(ValueError):
        compose(content, sender="hello@bikes.example", recipient=address, domain="bikes.example")
    if address:
        with pytest.raises(ValueError):
            composed(reply_to=address)


@pytest.mark.parametrize(
    "address", ["o'neil+tag@there.example", "a.b-c_d@xn--thre-bpa.example", "x=y@x.example", "!#$%&*/?^`{|}~@x.example"]
)
def test_odd_but_plain_addresses_are_taken(address: str) -> None:
    message = compose(Content("a", "b", "c"), sender="hello@x.example", recipient=address, domain="x.example")
    assert message.recipient == address
    assert [one.addr_spec for one in parsed(message)["To"].addresses] == [address]


@pytest.mark.parametrize("domain", ["bikes.example\r\nBcc: e@x.y", "bïkes.example", "bikes\0"])
def test_domain_that_no_header_may_hold_is_refused(domain: str) -> None:
    with pytest.raises(ValueError):
        compose(Content("a", "b", "c"), sender="hello@x.example", recipient="visitor@x.example", domain=domain)


def test_joiners_stay_in_words_and_emoji() -> None:
    assert (
        one_line("می\u200cخواهم \N{WOMAN}\u200d\N{PERSONAL COMPUTER}\u202e")
        == "می\u200cخواهم \N{WOMAN}\u200d\N{PERSONAL COMPUTER}"
    )
