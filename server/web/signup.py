"""POST /signup and the thank-you page: from a request to `signup.register`, and from its errors to an answer."""

from collections.abc import Mapping
from typing import Any, cast

from fastapi import APIRouter, BackgroundTasks, Request
from pydantic import ValidationError
from starlette.responses import JSONResponse, RedirectResponse, Response

from server import log
from server.form import Form
from server.i18n import Text
from server.signup import ProofRequired, Reception, register
from server.site import Site
from server.web import bodies, origin, problems, proof
from server.web.depends import Intake, Receptions, home, intake
from server.web.negotiation import prefers_json
from server.web.pages import page
from server.web.problems import Problem
from server.web.schema import SIGNUP
from server.web.visit import visit

_log = log.get(__name__)

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
        site = await _take(request, here, fields)
    except problems.FAILURES as error:
        problem, whose = problems.of(error), _site(here.receptions, fields)
        if not plain:
            return problems.answer(request, problem, whose)
        return _form_again(request, here, whose, fields, problem)
    background.add_task(here.wake)
    if plain:
        return RedirectResponse(_afterwards(request, site, fields.get("_next")), 303)
    return JSONResponse({"status": "accepted"}, 202)


async def _take(request: Request, here: Intake, fields: Mapping[str, Any]) -> Site:
    """Registers the signup, and answers its site. Raises what is in FAILURES."""
    reception = _find(here.receptions, fields)
    site = reception.site
    origin.check(request, site)
    form = _validate(reception, fields)
    known = visit(request, here.keys, here.proxies.network(request), site.slug, fields, form)
    try:
        await register(here.database, here.gate, reception, form, known)
    except ProofRequired:
        detail = Text("So many forms come in just now that we ask for a little work before we take another.")
        members = {"challenge": f"/_doorbell/challenge/{site.slug}"}
        raise Problem(429, detail, headers={"retry-after": str(proof.WAIT)}, members=members) from None
    return site


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


def _afterwards(request: Request, site: Site, wanted: object) -> str:
    """Where a plain form leads: to what it asks for, if the site's list has exactly that."""
    if wanted and wanted in site.signup.next:
        target = str(wanted)
        return target if "://" in target else home(request, site) + target
    if wanted:
        _log.info("signup.next_ignored", site=site.slug)
    return home(request, site) + site.signup.thanks if site.signup.thanks else f"/thanks/{site.slug}"


def _form_again(
    request: Request, here: Intake, site: Site | None, fields: Mapping[str, Any], problem: Problem
) -> Response:
    """The same form on a page of its own, with what was typed and what is wrong: nothing is lost."""
    values: dict[str, object] = {"problem": problem, "typed": fields}
    if site is None:
        return page(request, "problem.html", values, status=problem.status, headers=problem.headers)
    if "challenge" in problem.members:
        return _wait(request, here, site, fields, problem)
    values |= {
        "told": Text("{problem} What you typed is kept below.", problem=problem.detail),
        "fields": site.signup.fields,
        "errors": dict(problem.errors),
        "home": home(request, site),
    }
    return page(request, "form.html", values, site=site, status=problem.status, headers=problem.headers)


def _wait(request: Request, here: Intake, site: Site, fields: Mapping[str, Any], problem: Problem) -> Response:
    """What was typed, and a button that can be pressed in a while: the proof of who has no script."""
    network, token, early = here.proxies.network(request), fields.get("_token"), False
    try:
        proof.waited(here.keys, site.slug, network, token)
    except proof.Early:
        early = True
    kept = ["site", "email", "name", *site.signup.fields, "_next"]
    values = {
        "early": early,
        "token": token if early else proof.button(here.keys, site.slug, network),
        "kept": {name: fields[name] for name in kept if name in fields},
        "home": home(request, site),
    }
    return page(request, "wait.html", values, site=site, status=problem.status, headers=problem.headers)


@router.api_route("/thanks/{slug}", methods=["GET", "HEAD"], include_in_schema=False)
async def thanks(request: Request, slug: str, receptions: Receptions) -> Response:
    """The built-in thank-you page of a site."""
    if (reception := receptions.get(slug)) is None:
        return page(request, "problem.html", {"problem": Problem(404, NO_SITE)}, status=404)
    return page(request, "thanks.html", {"home": home(request, reception.site)}, site=reception.site)
