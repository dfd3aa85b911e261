"""POST /signup and the thank-you page: from a request to `signup.register`, and from its errors to an answer."""

from collections.abc import Mapping
from typing import Any, cast

from fastapi import APIRouter, BackgroundTasks, Request
from pydantic import ValidationError
from starlette.responses import JSONResponse, RedirectResponse, Response

from server.form import Form
from server.i18n import Text
from server.signup import Reception, register
from server.site import Site
from server.web import bodies, problems
from server.web.depends import Receptions, home, intake
from server.web.negotiation import prefers_json
from server.web.pages import page
from server.web.problems import Problem
from server.web.schema import SIGNUP

router = APIRouter(tags=["signup"])

NO_SITE = Text("There is no such site here.")

# pydantic's error type -> what a visitor reads; of the last only the English names what there is to choose
_MESSAGES = {
    "missing": Text("This field is required."),
    "string_type": Text("This must be text."),
    "string_unicode": Text("This holds characters that are not valid."),
    "bool_type": Text("This must be true or false."),
    "bool_parsing": Text("This must be true or false."),
    "literal_error": Text("Please choose from the list.", english="Choose one of: {expected}."),
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
        problem, site = problems.of(error), _site(here.receptions, fields)
        if not plain:
            return problems.answer(request, problem, site)
        return _form_again(request, site, fields, problem)
    background.add_task(here.wake)
    if plain:
        return RedirectResponse(_thanks(request, reception.site), 303)
    return JSONResponse({"status": "accepted"}, 202)


def _find(receptions: Mapping[str, Reception], fields: Mapping[str, Any]) -> Reception:
    site = fields.get("site")
    if not isinstance(site, str) or not site:
        required = [("site", Text("This field is required."))]
        raise Problem(422, Text("The form does not say which site it belongs to."), required)
    if (reception := receptions.get(site)) is None:
        raise Problem(404, NO_SITE)
    return reception


def _site(receptions: Mapping[str, Reception], fields: Mapping[str, Any]) -> Site | None:
    """The site that the form is of, as far as is known."""
    slug = fields.get("site")
    reception = receptions.get(slug) if isinstance(slug, str) else None
    return reception.site if reception else None


def _validate(reception: Reception, fields: Mapping[str, Any]) -> Form:
    try:
        return reception.form.model_validate(fields)
    except ValidationError as error:
        raise Problem(422, Text("Please check what you entered."), _field_errors(error)) from None


def _field_errors(error: ValidationError) -> list[tuple[str, Text]]:
    """One message a field, the first."""
    found: dict[str, Text] = {}
    for item in error.errors(include_url=False, include_input=False):
        found.setdefault(str(item["loc"][0]), _message(item["type"], item.get("ctx", {})))
    return list(found.items())


def _message(kind: str, context: Mapping[str, Any]) -> Text:
    if kind in _MESSAGES:
        own = _MESSAGES[kind]
        # Only our own words are a format: a message of a check may quote what was typed, braces and all.
        return Text(own.msgid, english=own.format(**context))
    (text,) = context["error"].args  # the ValueError of a check
    return cast(Text, text)


def _thanks(request: Request, site: Site) -> str:
    return home(request, site) + site.signup.thanks if site.signup.thanks else f"/thanks/{site.slug}"


def _form_again(request: Request, site: Site | None, fields: Mapping[str, Any], problem: Problem) -> Response:
    """The same form on a page of its own, with what was typed and what is wrong: nothing is lost."""
    values: dict[str, object] = {"problem": problem, "typed": fields}
    if site is None:
        return page(request, "problem.html", values, status=problem.status, headers=problem.headers)
    values |= {
        "told": Text("{problem} What you typed is kept below.", problem=problem.detail),
        "fields": site.signup.fields,
        "errors": dict(problem.errors),
        "home": home(request, site),
    }
    return page(request, "form.html", values, site=site, status=problem.status, headers=problem.headers)


@router.api_route("/thanks/{slug}", methods=["GET", "HEAD"], include_in_schema=False)
async def thanks(request: Request, slug: str, receptions: Receptions) -> Response:
    """The built-in thank-you page of a site."""
    if (reception := receptions.get(slug)) is None:
        return page(request, "problem.html", {"problem": Problem(404, NO_SITE)}, status=404)
    return page(request, "thanks.html", {"home": home(request, reception.site)}, site=reception.site)
