"""Errors as answers: application/problem+json (RFC 9457), made in one place from whatever went wrong."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server import log
from server.db import DatabaseUnavailable
from server.i18n import Text, catalogue
from server.signup import KeyReused, LimitExceeded
from server.site import Site
from server.web.negotiation import prefers_html
from server.web.pages import language, page

_log = log.get(__name__)

MEDIA_TYPE = "application/problem+json"

# As RFC 9110 has them; what the standard library calls these differs from one Python to the next.
# The titles that visitors meet stand here, to be said in their languages.
_TITLES = {
    400: Text("Bad Request"),
    403: Text("Forbidden"),
    404: Text("Not Found"),
    405: Text("Method Not Allowed"),
    413: Text("Content Too Large"),
    415: Text("Unsupported Media Type"),
    422: Text("Unprocessable Content"),
    429: Text("Too Many Requests"),
    500: Text("Internal Server Error"),
    503: Text("Service Unavailable"),
}

OPERATOR_ONLY = Text("This address answers the operator only, from this machine or its private network (DOORBELL_OPS).")


class Problem(Exception):
    """An answer that is an error. `errors` says which fields and why, as (field, message); `members` is what else it
    tells a program (RFC 9457 section 3.2)."""

    def __init__(
        self,
        status: int,
        detail: Text,
        errors: list[tuple[str, Text]] | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = _TITLES.get(status) or Text(HTTPStatus(status).phrase)
        self.detail = detail
        self.errors = errors or []
        self.headers = dict(headers or {})
        self.members = dict(members or {})


# What each kind of failure is to a client.
FAILURES = (Problem, HTTPException, DatabaseUnavailable, LimitExceeded, KeyReused)


def of(error: Exception) -> Problem:
    """The problem that `error`, one of FAILURES, is to a client."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return Problem(error.status_code, _detail(error), headers=error.headers)
    if isinstance(error, DatabaseUnavailable):
        _log.error("request.database_unavailable", reason=str(error))
        return Problem(
            503, Text("We cannot write it down just now. Please try again soon."), headers={"retry-after": "30"}
        )
    if isinstance(error, LimitExceeded):
        headers = {"retry-after": str(error.retry_after)}
        return Problem(429, Text("Too many forms were sent just now. Please try again later."), headers=headers)
    if isinstance(error, KeyReused):
        return Problem(422, Text("This Idempotency-Key came with another form before."))
    raise TypeError(error)


def _detail(error: HTTPException) -> Text:
    allowed = (error.headers or {}).get("Allow")
    if error.status_code == 405 and allowed:
        return Text("This address takes {methods} only.", methods=allowed)
    if isinstance(error.detail, Text):
        return error.detail
    # The framework's own: a title, or what is wrong with a body.
    known = _TITLES.get(error.status_code)
    return known if known == error.detail else Text("The request cannot be read.", english=error.detail)


def respond(problem: Problem, language: str) -> Response:
    """The problem as JSON. The title is that of the status, and stays English."""
    texts = catalogue(language)
    body: dict[str, object] = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail.within(texts),
        **problem.members,
    }
    if problem.errors:
        body["errors"] = [{"field": field, "message": message.within(texts)} for field, message in problem.errors]
    ours = {"content-language": language, "vary": "Accept-Language"}
    return JSONResponse(body, problem.status, {**ours, **problem.headers}, MEDIA_TYPE)


def answer(request: Request, problem: Problem, site: Site | None = None) -> Response:
    """A page for a browser, JSON for everybody else; in the client's language, else that of `site`."""
    if prefers_html(request.headers.get("accept", "")):
        values = {"problem": problem}
        return page(request, "problem.html", values, site=site, status=problem.status, headers=problem.headers)
    return respond(problem, language(request, site))


async def handle(request: Request, error: Exception) -> Response:
    """Exception handler for each of FAILURES."""
    return answer(request, of(error))
