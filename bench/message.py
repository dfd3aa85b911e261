"""What one mail costs to build: ours against the standard library's two ways, in turn, in one run.

Run as `python -m bench.message`. `measure` is for other benches. Every way must say the same before it is measured.
"""

import email
import email.policy
import time
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import format_datetime, localtime, make_msgid
from statistics import median

from server.mail.message import Body, Content, Frame, compose

SENDER = "Bike Shed <hello@bikes.example>"
RECIPIENT = "visitor@there.example"
DOMAIN = "bikes.example"
_TEXT = "Thank you for writing to us. We have your message, and will answer it soon.\n" * 8
_HTML = '<p style="margin:0 0 16px;">Thank you for writing to us. We will answer soon – in a day or two.</p>\n' * 16

_frame = Frame(SENDER, DOMAIN)
_same = Body(Content("We have your message", _TEXT, _HTML))
_LINKS = ("https://bikes.example/confirm/", "https://bikes.example/unsubscribe/")


def _linked(ends: Mapping[str, str]) -> Content:
    """The same with two links, as what asks to confirm has them."""
    urls = [start + end for start, end in zip(_LINKS, ends.values(), strict=True)]
    html = "".join(f'<p><a href="{url}">{url}</a></p>\n' for url in urls)
    return Content("We have your message", _TEXT + "\n\n".join(urls) + "\n", _HTML + html)


def _ends(number: int) -> dict[str, str]:
    return {"confirm": f"c{number:099d}", "unsubscribe": f"u{number:0119d}"}


_asking = Body(_linked(_ends(0)), _ends(0))


def content(number: int) -> Content:
    """About 2 KB, and no two alike."""
    return Content("We have your message", f"{_TEXT}{number}\n", f"{_HTML}<p>{number}</p>\n")


def _email_message(number: int) -> bytes:
    said, mail = content(number), EmailMessage(policy=email.policy.SMTP)
    mail["From"], mail["To"], mail["Subject"] = SENDER, RECIPIENT, said.subject
    mail["Date"], mail["Message-ID"] = format_datetime(localtime()), make_msgid(domain=DOMAIN)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(said.text, cte="quoted-printable")
    mail.add_alternative(said.html, subtype="html", cte="quoted-printable")
    return mail.as_bytes()


def _mime_text(number: int) -> bytes:
    said, mail = content(number), MIMEMultipart("alternative")
    mail["From"], mail["To"], mail["Subject"] = SENDER, RECIPIENT, said.subject
    mail["Date"], mail["Message-ID"] = format_datetime(localtime()), make_msgid(domain=DOMAIN)
    mail["Auto-Submitted"] = "auto-generated"
    mail.attach(MIMEText(said.text, "plain", "utf-8"))
    mail.attach(MIMEText(said.html, "html", "utf-8"))
    return mail.as_bytes().replace(b"\n", b"\r\n")


def _compose(number: int) -> bytes:
    return compose(content(number), sender=SENDER, recipient=RECIPIENT, domain=DOMAIN).data


def _changing(number: int) -> bytes:
    return _frame.fill(Body(content(number)), RECIPIENT).data


def _constant(number: int) -> bytes:
    return _frame.fill(_same, RECIPIENT).data


def _holes(number: int) -> bytes:
    ends = _ends(number)
    return _frame.fill(_asking, RECIPIENT, holes=ends, unsubscribe=_LINKS[1] + ends["unsubscribe"]).data


WAYS: dict[str, Callable[[int], bytes]] = {
    "EmailMessage": _email_message,
    "MIMEText": _mime_text,
    "compose": _compose,
    "frame, new bodies": _changing,
    "frame, the same bodies": _constant,
    "frame, links filled in": _holes,
}


_MEANT = {
    "frame, the same bodies": Content("We have your message", _TEXT, _HTML),
    "frame, links filled in": _linked(_ends(7)),
}


def _check() -> None:
    for name, build in WAYS.items():
        read = email.message_from_bytes(build(7), policy=email.policy.default)
        said = _MEANT.get(name, content(7))
        for kind, meant in (("plain", said.text), ("html", said.html)):
            part = read.get_body((kind,))
            if part is None or part.get_content().replace("\r\n", "\n").rstrip() != meant.rstrip():
                raise SystemExit(f"{name}: the {kind} part is not what was meant")


def measure(rounds: int = 15, mails: int = 200) -> dict[str, float]:
    """Microseconds a mail by way: the median of `rounds`, in each of which every way builds `mails`."""
    _check()
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, build in WAYS.items():
            begun = time.process_time()
            for number in range(mails):
                build(number)
            found[name].append((time.process_time() - begun) / mails * 1e6)
    return {name: median(times) for name, times in found.items()}


if __name__ == "__main__":
    figures = measure()
    slowest = figures["EmailMessage"]
    print(f"{'':24}{'µs a mail':>10}{'times as fast':>16}")
    for name, microseconds in figures.items():
        print(f"{name:24}{microseconds:10.1f}{slowest / microseconds:16.1f}")
