"""Options that several commands have, and what may be written for them."""

import re
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

_SINCE = re.compile(r"(\d+)\s*(min|h|d)")
_UNITS = {"min": 60, "h": 3600, "d": 86400}


def _since(when: str) -> float:
    if found := _SINCE.fullmatch(when):
        return time.time() - int(found[1]) * _UNITS[found[2]]
    try:
        day = datetime.fromisoformat(when)
    except ValueError:
        raise typer.BadParameter("must look like 90min, 6h, 30d, 2026-05-01 or 2026-05-01T14:30") from None
    return (day if day.tzinfo else day.replace(tzinfo=UTC)).timestamp()


SiteName = Annotated[str | None, typer.Option("--site", help="The site's folder name.")]
Since = Annotated[
    float | None,
    typer.Option("--since", parser=_since, metavar="WHEN", help="Written since: 90min, 6h, 30d, 2026-05-01 (UTC)."),
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
