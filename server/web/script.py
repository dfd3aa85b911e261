"""What form.js asks for beside the form: a token, since pages are cached and can hold none, and a puzzle."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from server.signup import proof_wanted
from server.web import proof, visit
from server.web.depends import intake
from server.web.problems import Problem
from server.web.schema import CHALLENGE, TOKEN
from server.web.signup import NO_SITE

router = APIRouter(tags=["signup"])
_READ = ["GET", "HEAD"]
_FRESH = {"cache-control": "no-store"}


@router.get("/_doorbell/token/{slug}", **TOKEN)
@router.api_route("/_doorbell/token/{slug}", methods=_READ, include_in_schema=False)
async def token(request: Request) -> JSONResponse:
    """Says when the form was opened, and whether a proof of work must come with it."""
    here, slug = intake(request), str(request.path_params["slug"])
    if (reception := here.receptions.get(slug)) is None:
        raise Problem(404, NO_SITE)
    wanted = await proof_wanted(here.database, here.gate, reception.site)
    return JSONResponse({"token": visit.token(here.keys, slug), "proof": wanted}, headers=_FRESH)


@router.get("/_doorbell/challenge/{slug}", **CHALLENGE)
@router.api_route("/_doorbell/challenge/{slug}", methods=_READ, include_in_schema=False)
async def challenge(request: Request) -> JSONResponse:
    """A puzzle for ALTCHA's clients; its solution goes into the form's field `altcha`."""
    here, slug = intake(request), str(request.path_params["slug"])
    if slug not in here.receptions:
        raise Problem(404, NO_SITE)
    return JSONResponse(proof.challenge(here.keys, slug), headers=_FRESH)
