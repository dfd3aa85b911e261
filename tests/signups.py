"""Signups as visitors make them, for what is done about them later."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from server.db import Database
from server.limits import Gate
from server.signing import Keys
from server.signup import Reception, Visit, reception, register
from server.site import load
from tests import provision
from tests.conftest import SITE_TOML

# A site that wants addresses confirmed, with a box to consent.
ASKING = (
    SITE_TOML.replace("double_opt_in = false", "double_opt_in = true").replace("Bike", "Lamp")
    + """
[signup.fields.news]
type = "checkbox"
label = "Write to me when there are new lamps."
consent = true
"""
)
KEYS = Keys(["a secret of some length"])
GATE = Gate(KEYS, enabled=False)
HOUR = 3600.0
DAY = 24 * HOUR


def received(folder: Path) -> Reception:
    """The site in this folder."""
    return reception(load(folder), base_url="http://localhost:8000", mail_from="s@here.example", keys=KEYS)


async def sign_up(
    database: Database, at: Reception, emails: Iterable[str], *, age: float = 0, spam: str | None = None, **more: Any
) -> list[int]:
    """Signups of these addresses, `age` seconds ago; `more` are fields."""
    ids = []
    for email in emails:
        form = at.form.model_validate({"email": email, "colour": "Red", **more})
        ids.append(await register(database, GATE, at, form, Visit(spam=spam)))
    if age and ids:
        change(database, f"UPDATE signups SET created_at = created_at - {age} WHERE id >= {min(ids)}")
    return ids


def change(database: Database, statement: str) -> list[Any]:
    """Reads or writes past our own code."""
    return provision.ask(database.url.render_as_string(hide_password=False), statement)
