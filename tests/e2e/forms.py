"""What a visitor of the repository's sites enters in their forms, and the mails that must come of it."""

import re
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Literal

from playwright.sync_api import Locator, Page

from tests.e2e.conftest import HTTP, Server, wait_until

Place = Literal["path", "domain"]


@dataclass(frozen=True)
class Visit:
    """A site's form and what a visitor enters there, by field: `tool` is the page that helps to fill it in."""

    slug: str
    form: str
    tool: str
    owner: str
    typed: dict[str, str]
    chosen: dict[str, str]
    required: list[str] = field(default_factory=list)
    asks: bool = True  # the visitor to confirm, before the owner is told

    def base(self, server: Server, place: Place) -> str:
        """The site's root: below its path, or on a domain of its own."""
        host = domain(self.slug) if place == "domain" else "localhost"
        return f"http://{host}:{server.port}/" + ("" if place == "domain" else f"{self.slug}/")

    def visitor(self, name: str) -> str:
        """An address that no other test writes from."""
        return f"{self.slug}-{name}@example.com"


def domain(slug: str) -> str:
    """Browsers look for .localhost on this machine."""
    return f"{slug.replace('_', '-')}.localhost"


PET_CARE = Visit(
    "pet_care",
    "join/",
    "plan/",
    "frontdesk@puddleandpaw.example",
    {"name": "Zoë O'Neil", "pet_name": "Bärli", "message": "Shy at first.\nLikes <b>cheese</b> & walks."},
    {"pet_kind": "Dog", "needs": "Walks"},
    ["pet_name", "pet_kind", "email"],
)
INTERIOR_DESIGN = Visit(
    "interior_design",
    "start/",
    "palette/",
    "letters@stillroom.example",
    {"name": "Zoë O'Neil", "message": "North light.\nHigh ceilings {{7*7}}."},
    {"room": "Kitchen", "budget": "5,000 to 15,000", "timing": "Within a year"},
    ["room", "email"],
    asks=False,
)
VISITS = [PET_CARE, INTERIOR_DESIGN]


def fill(page: Page, visit: Visit, email: str) -> None:
    page.locator("[name=email]").fill(email)
    for name, text in visit.typed.items():
        page.locator(f"[name={name}]").fill(text)
    for name, choice in visit.chosen.items():
        page.locator(f"[name={name}]").select_option(choice)


def send(page: Page) -> Locator:
    """The form's own button."""
    return page.locator("form[data-doorbell] button[type=submit]:visible")


def check_mails(server: Server, visit: Visit, email: str, also: str = "") -> None:
    """The visitor is mailed nothing that was typed; the owner, once that is due, everything, and `also`."""
    if visit.asks:
        (asked,) = mails_of(server, email, 1)
        assert texts(asked)[0].count("/confirm/") == 1
        path = "/confirm/" + re.findall(r"/confirm/(\S+)", texts(asked)[0])[0]
        assert HTTP.post(server.url + path).status_code == 200
    *to_visitor, to_owner = sorted(
        mails_of(server, email, 3 if visit.asks else 2), key=lambda mail: str(mail["Delivered-To"]) == visit.owner
    )
    assert {str(mail["Delivered-To"]) for mail in to_visitor} == {email}
    assert str(to_owner["Delivered-To"]) == visit.owner
    text, html = texts(to_owner)
    for value in [email, *visit.typed.values(), *visit.chosen.values(), *also.splitlines()]:
        assert value.splitlines()[-1] in text
    assert "<b>cheese</b>" not in html
    for value in [*visit.typed.values(), also]:
        assert not value or not any(value.splitlines()[0] in body for mail in to_visitor for body in texts(mail))


def mails_of(server: Server, email: str, count: int) -> list[EmailMessage]:
    """So many mails to this visitor, or about him; waits for them."""
    found: list[EmailMessage] = []

    def all_there() -> bool:
        found[:] = [mail for mail in server.mails() if email in (mail["Delivered-To"], mail["Reply-To"])]
        return len(found) == count

    wait_until(all_there)
    return found


def texts(mail: EmailMessage) -> list[str]:
    """The two parts, plain first."""
    return [part.get_content().replace("\r\n", "\n") for part in mail.walk() if not part.is_multipart()]
