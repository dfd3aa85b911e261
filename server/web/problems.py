"""Errors as answers: application/problem+json (RFC 9457), made in one place from whatever went wrong."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server import log
from server.db import DatabaseUnavailable
from server.web.negotiation import prefers_html
from server.web.pages import page

_log = log.get(__name__)

MEDIA_TYPE = "application/problem+json"

# As RFC 9110 has them; what the standard library calls these differs from one Python to the next.
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}

OPERATOR_ONLY = "This address answers the operator only, from this machine or its private network (DOORBELL_OPS)."


class Problem(Exception):
    """An answer that is an error. `errors` says which fields and why, as (field, message)."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: list[tuple[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = _TITLES.get(status) or HTTPStatus(status).phrase
        self.detail = detail
        self.errors = errors or []
        self.headers = dict(headers or {})


# What each kind of failure is to a client.
FAILURES = (Problem, HTTPException, DatabaseUnavailable)


def of(error: Exception) -> Problem:
    """The problem that `error`, one of FAILURES, is to a client."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return Problem(error.status_code, _detail(error), headers=error.headers)
    if isinstance(error, DatabaseUnavailable):
        _log.error("request.database_unavailable", reason=str(error))
        return Problem(503, "We cannot write it down just now. Please try again soon.", headers={"retry-after": "30"})
    raise TypeError(error)


def _detail(error: HTTPException) -> str:
    allowed = (error.headers or {}).get("Allow")
    return f"This address takes {allowed} only." if error.status_code == 405 and allowed else error.detail


def respond(problem: Problem) -> Response:
    """The problem as JSON."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.errors:
        body["errors"] = [{"field": field, "message": message} for field, message in problem.errors]
    return JSONResponse(body, problem.status, problem.headers, MEDIA_TYPE)


async def handle(request: Request, error: Exception) -> Response:
    """Exception handler for each of FAILURES: a page for a browser, JSON for everybody else."""
    problem = of(error)
    if prefers_html(request.headers.get("accept", "")):
        return page("problem.html", {"problem": problem}, status=problem.status, headers=problem.headers)
    return respond(problem)
