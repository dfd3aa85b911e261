"""POST /signup and the thank-you page: from a request to `signup.register`, and from its errors to an answer."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, BackgroundTasks, Request
from pydantic import ValidationError
from starlette.responses import JSONResponse, RedirectResponse, Response

from server.form import Form
from server.signup import Reception, register
from server.site import Site
from server.web import bodies, problems
from server.web.depends import Receptions, home, intake
from server.web.negotiation import prefers_json
from server.web.pages import page
from server.web.problems import Problem
from server.web.schema import SIGNUP

router = APIRouter(tags=["signup"])

# pydantic's error type -> what a visitor reads
_MESSAGES = {
    "missing": "This field is required.",
    "string_type": "This must be text.",
    "string_unicode": "This holds characters that are not valid.",
    "literal_error": "Choose one of: {expected}.",
    "bool_type": "This must be true or false.",
    "bool_parsing": "This must be true or false.",
}


@router.post("/signup", **SIGNUP)
async def signup(request: Request, background: BackgroundTasks) -> Response:
    """Takes a signup. When it answers 202 or 303, the signup and its mails are on the disk."""
    here, fields = intake(request), dict[str, Any]()
    plain = bodies.is_form(request) and not prefers_json(request.headers.get("accept", ""))
    try:
        fields = await bodies.read(request)
        reception = _find(here.receptions, fields)
        form = _validate(reception, fields)
        await register(here.database, here.gate, reception, form)
    except problems.FAILURES as error:
        if not plain:
            raise
        return _form_again(request, here.receptions, fields, problems.of(error))
    background.add_task(here.wake)
    if plain:
        return RedirectResponse(_thanks(request, reception.site), 303)
    return JSONResponse({"status": "accepted"}, 202)


def _find(receptions: Mapping[str, Reception], fields: Mapping[str, Any]) -> Reception:
    site = fields.get("site")
    if not isinstance(site, str) or not site:
        raise Problem(422, "The form does not say which site it belongs to.", [("site", "This field is required.")])
    if (reception := receptions.get(site)) is None:
        raise Problem(404, "There is no such site here.")
    return reception


def _validate(reception: Reception, fields: Mapping[str, Any]) -> Form:
    try:
        return reception.form.model_validate(fields)
    except ValidationError as error:
        raise Problem(422, "Please check what you entered.", _field_errors(error)) from None


def _field_errors(error: ValidationError) -> list[tuple[str, str]]:
    """One message a field, the first."""
    found: dict[str, str] = {}
    for item in error.errors(include_url=False, include_input=False):
        # Only our own words are a format: a message of a check may quote what was typed, braces and all.
        own = _MESSAGES.get(item["type"])
        message = own.format(**item.get("ctx", {})) if own else item["msg"].removeprefix("Value error, ")
        found.setdefault(str(item["loc"][0]), message)
    return list(found.items())


def _thanks(request: Request, site: Site) -> str:
    return home(request, site) + site.signup.thanks if site.signup.thanks else f"/thanks/{site.slug}"


def _form_again(
    request: Request, receptions: Mapping[str, Reception], fields: Mapping[str, Any], problem: Problem
) -> Response:
    """The same form on a page of its own, with what was typed and what is wrong: nothing is lost."""
    slug = fields.get("site")
    reception = receptions.get(slug) if isinstance(slug, str) else None
    if reception is None:
        return page(
            "problem.html", {"problem": problem, "typed": fields}, status=problem.status, headers=problem.headers
        )
    values = {
        "problem": problem,
        "heading": "Almost there" if problem.status == 422 else problem.title,
        "fields": reception.site.signup.fields,
        "typed": fields,
        "errors": dict(problem.errors),
        "home": home(request, reception.site),
    }
    return page("form.html", values, site=reception.site, status=problem.status, headers=problem.headers)


@router.api_route("/thanks/{slug}", methods=["GET", "HEAD"], include_in_schema=False)
async def thanks(request: Request, slug: str, receptions: Receptions) -> Response:
    """The built-in thank-you page of a site."""
    if (reception := receptions.get(slug)) is None:
        problem = Problem(404, "There is no such site here.")
        return page("problem.html", {"problem": problem}, status=404)
    return page("thanks.html", {"home": home(request, reception.site)}, site=reception.site)
