"""The mail that every sender sends: 2 KB as text and HTML, to addresses at twenty domains in turn."""

import json

DOMAIN = "pets.example"
ADDRESS = f"hello@{DOMAIN}"
SENDER = f"Pets at Home <{ADDRESS}>"
SUBJECT = "Please confirm that it was you"
_DOMAINS = 20

_PARAGRAPHS = (
    "Somebody – you, we hope – left this address with us. Please tell us that it was you, and we will write to you"
    " about the walk that you asked for.",
    "The link is good for three days. If it was not you, you need do nothing: we will not write again, and nobody but"
    " us has seen this address.",
)
_LINK = "https://pets.example/confirm/Zm9ydHktdHdvLXRob3VzYW5kLXNldmVuLWh1bmRyZWQtYW5kLXNpeA"

TEXT = "\n\n".join(["Hello,", *_PARAGRAPHS, _LINK, "Pets at Home – 3 Mill Lane, Bath"]) + "\n"

HTML = f"""\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>{SUBJECT}</title></head>
<body style="margin:0;padding:24px;font-family:sans-serif">
<p>Hello,</p>
<p>{_PARAGRAPHS[0]}</p>
<p><a href="{_LINK}" style="background:#0b6e4f;color:#fff">Yes, it was me</a></p>
<p>{_PARAGRAPHS[1]}</p>
<p><small>Pets at Home – 3 Mill Lane, Bath</small></p>
</body>
</html>
"""


def recipient(number: int) -> str:
    """An address of its own for each mail; neighbours are at different domains."""
    return f"visitor{number}@host{number % _DOMAINS}.example.com"


def as_json() -> str:
    """The letter for who reads no Python."""
    return json.dumps({"from": SENDER, "subject": SUBJECT, "text": TEXT, "html": HTML, "domains": _DOMAINS})
