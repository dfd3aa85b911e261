"""The pages behind the links in mails: to confirm a signup, and to want no more mail.

GET shows a page with one button and changes nothing, for scanners and previews open every link; POST acts. The token is
the authority: who has the mail may come from anywhere, as often as he likes.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, BackgroundTasks, Request
from starlette.responses import PlainTextResponse, Response

from server import signup
from server.signing import BadToken
from server.site import Site
from server.web import bodies
from server.web.depends import Intake, home, intake, of_host
from server.web.negotiation import prefers_html
from server.web.pages import page
from server.web.problems import Problem
from server.web.schema import CONFIRM, CONFIRM_PAGE, UNSUBSCRIBE, UNSUBSCRIBE_PAGE

router = APIRouter(tags=["consent"])
_METHODS = ["GET", "HEAD", "POST"]

# The address of these pages is a secret, and tells no other.
_SECRET = {"referrer-policy": "no-referrer", "x-robots-tag": "noindex"}


# One route for all methods, so that 405 names them all; the others are for the document.
@router.get("/confirm/{token}", **CONFIRM_PAGE)
@router.post("/confirm/{token}", **CONFIRM)
@router.api_route("/confirm/{token}", methods=_METHODS, include_in_schema=False)
async def confirm(request: Request, background: BackgroundTasks) -> Response:
    """Confirms a signup; for a link that is too old, offers a new one."""
    here = intake(request)
    try:
        key, age = here.keys.read_stamped("confirm", request.path_params["token"])
    except BadToken:
        return _page(request, here, "unknown", status=404)
    if (found := await signup.pending(here.database, key)) is None:
        return _page(request, here, "gone", of_host(request, here.receptions), status=410)
    site = _site(here, found.site)
    old = age > signup.CONFIRM_SECONDS and found.status == "unconfirmed"
    if request.method != "POST":
        return _page(request, here, "old" if old else "confirm", site)
    background.add_task(here.wake)
    if not old:
        if not await signup.confirm(here.database, here.receptions, key):
            return _page(request, here, "gone", site, status=410)
        return _page(request, here, "confirmed", site)
    if (await _sent(request)).get("again") != "1":
        return _page(request, here, "old", site)
    # The same page whether a mail goes or not: limits tell of other posts.
    await signup.ask_again(here.database, here.gate, here.receptions, key)
    return _page(request, here, "sent", site)


@router.get("/unsubscribe/{token}", **UNSUBSCRIBE_PAGE)
@router.post("/unsubscribe/{token}", **UNSUBSCRIBE)
@router.api_route("/unsubscribe/{token}", methods=_METHODS, include_in_schema=False)
async def unsubscribe(request: Request) -> Response:
    """Ends the mail of a site to an address. A program's one click (RFC 8058) and a person's are the same: what the
    body says does not matter, so nothing can be wrong with it."""
    here = intake(request)
    try:
        slug, _, recipient_hash = here.keys.read("unsubscribe", request.path_params["token"]).partition(".")
    except BadToken:
        return _page(request, here, "unknown", status=404)
    site = _site(here, slug)
    if request.method != "POST":
        return _page(request, here, "unsubscribe", site)
    await signup.unsubscribe(here.database, slug, recipient_hash)
    if prefers_html(request.headers.get("accept", "")):
        return _page(request, here, "unsubscribed", site)
    return PlainTextResponse("Unsubscribed.\n", headers={"cache-control": "no-store", **_SECRET})


def _site(here: Intake, slug: str) -> Site | None:
    """None where the site is no longer here; its links still work."""
    reception = here.receptions.get(slug)
    return reception.site if reception else None


def _page(request: Request, here: Intake, state: str, site: Site | None = None, status: int = 200) -> Response:
    # Which site a signup was for is gone with it; there is a list of them.
    elsewhere = "/" if state == "gone" and request.app.state.index else None
    values = {"state": state, "home": home(request, site) if site else elsewhere}
    return page(request, "consent.html", values, site=site, status=status, headers=_SECRET)


async def _sent(request: Request) -> Mapping[str, Any]:
    try:
        return await bodies.read(request)
    except Problem:
        return {}
