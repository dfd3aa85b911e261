"""What a visitor of the repository's sites enters in their forms, and the mails that must come of it."""

from dataclasses import dataclass, field
from typing import Literal

from playwright.sync_api import Locator, Page

from tests.e2e.conftest import Server, wait_until

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
    """The visitor has a welcome that repeats nothing, the owner a notice with everything, and `also`."""
    mails = {}

    def both() -> bool:
        mine = [mail for mail in server.mails() if email in (mail["Delivered-To"], mail["Reply-To"])]
        mails.update({str(mail["Delivered-To"]): mail for mail in mine})
        return len(mine) == 2

    wait_until(both)
    bodies = {to: [part.get_content() for part in mail.walk() if not part.is_multipart()] for to, mail in mails.items()}
    assert set(mails) == {email, visit.owner}
    text, html = (body.replace("\r\n", "\n") for body in bodies[visit.owner])
    for value in [email, *visit.typed.values(), *visit.chosen.values(), *also.splitlines()]:
        assert value.splitlines()[-1] in text
    assert "<b>cheese</b>" not in html
    for value in [*visit.typed.values(), also]:
        assert not value or not any(value.splitlines()[0] in body for body in bodies[email])
