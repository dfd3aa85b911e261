"""What the OpenAPI document says of the API, where the code alone does not: bodies, errors, examples."""

from typing import Any

from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from server.web.problems import MEDIA_TYPE, OPERATOR_ONLY


class Accepted(BaseModel):
    """The signup is kept; its mails are on their way."""

    status: str = "accepted"


_TEXT = {"type": "string"}
# In place, not by reference: FastAPI puts into the components only what is a route's model.
_PROBLEM = {
    "type": "object",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": _TEXT,
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "challenge": {"type": "string", "description": "Where the puzzle is whose solution must come along."},
        "errors": {
            "type": "array",
            "description": "What is wrong, by field.",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": _TEXT, "message": _TEXT},
            },
        },
    },
}


def _problem(description: str, example: dict[str, Any]) -> dict[str, Any]:
    page = {"schema": {"type": "string", "description": "The same as a page, for a browser."}}
    content = {MEDIA_TYPE: {"schema": _PROBLEM, "example": example}, "text/html": page}
    return {"description": description, "content": content}


def _plain(status: int, title: str, detail: str) -> dict[str, Any]:
    return _problem(title, {"type": "about:blank", "title": title, "status": status, "detail": detail})


_FIELDS = {
    "type": "object",
    "required": ["site", "email"],
    "properties": {
        "site": {"type": "string", "minLength": 1, "description": "The site's slug: the first segment of its path."},
        "email": {"type": "string", "format": "email", "maxLength": 254},
        "name": {"type": "string", "maxLength": 100},
        "_token": {"type": "string", "description": "From /_doorbell/token/{slug}. Without it limits are stricter."},
        "altcha": {"type": "string", "description": "The solution of /_doorbell/challenge/{slug}, base64 of JSON."},
        "_next": {"type": "string", "description": "Where a plain form leads: one of the site's `next`, exactly."},
    },
    "additionalProperties": {
        "description": "A field that the site's site.toml declares. Others are ignored.",
        "type": ["string", "boolean", "number", "null"],
    },
}

_EXAMPLE = {
    "site": "pet_care",
    "email": "visitor@example.com",
    "name": "Robin",
    "pet_name": "Biscuit",
    "pet_kind": "Dog",
    "needs": "Walks",
    "message": "She is shy at first.",
}

_INVALID = {
    "type": "about:blank",
    "title": "Unprocessable Content",
    "status": 422,
    "detail": "Please check what you entered.",
    "errors": [{"field": "email", "message": "This field is required."}],
}

_PROOF = {
    "type": "about:blank",
    "title": "Too Many Requests",
    "status": 429,
    "detail": "So many forms come in just now that we ask for a little work before we take another.",
    "challenge": "/_doorbell/challenge/pet_care",
}

_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": (
        "Any string, in quotes or bare. The same key with the same form within a day is the same signup "
        "(draft-ietf-httpapi-idempotency-key-header)."
    ),
    "schema": {"type": "string", "pattern": r'^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-+\--~]{1,255})$'},
    "example": '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
}

READINESS: dict[str, Any] = {
    "responses": {
        403: _plain(403, "Forbidden", OPERATOR_ONLY),
        503: {"description": "Signups cannot be kept just now", "content": {"application/json": {"schema": {}}}},
    }
}

SIGNUP: dict[str, Any] = {
    "status_code": 202,
    "response_model": Accepted,
    "summary": "Sign up",
    "description": (
        "Takes the form of a site. When it answers 202 or 303, the signup and its mails are on the disk and survive a "
        "crash. The answer is the same whether the address is new or known. A plain form is answered with 303 to the "
        "thank-you page, or with a page that says what is wrong and keeps what was typed, unless `Accept` prefers JSON."
    ),
    "openapi_extra": {
        "parameters": [_IDEMPOTENCY_KEY],
        "requestBody": {
            "required": True,
            "content": {
                media_type: {"schema": _FIELDS, "example": _EXAMPLE}
                for media_type in ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
            },
        },
    },
    "responses": {
        202: {"description": "Accepted", "content": {"application/json": {"example": {"status": "accepted"}}}},
        303: {
            "description": "Accepted (plain form): see the thank-you page",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        400: _plain(400, "Bad Request", "The body is not valid JSON."),
        403: _plain(403, "Forbidden", "This form was sent from a page that is not one of this site's."),
        404: _plain(404, "Not Found", "There is no such site here."),
        413: _plain(413, "Content Too Large", "The request body may have at most 64 KiB."),
        415: _plain(
            415,
            "Unsupported Media Type",
            "Send the form as one of application/json, application/x-www-form-urlencoded, multipart/form-data.",
        ),
        422: _problem("A field is missing or wrong, or the Idempotency-Key came with another form before", _INVALID),
        429: {
            **_problem("Too many, or a proof of work is asked for: `challenge` says where", _PROOF),
            "headers": {"Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer"}}},
        },
        503: _plain(503, "Service Unavailable", "We cannot write it down just now. Please try again soon."),
    },
}


class Token(BaseModel):
    """When a form was opened, signed; and whether a proof of work must come with it."""

    token: str
    proof: bool


class Challenge(BaseModel):
    """A puzzle of ALTCHA, version 1: a number up to `maxnumber` whose hash after `salt` is `challenge`."""

    algorithm: str
    challenge: str
    maxnumber: int
    salt: str
    signature: str


_NO_SITE = _plain(404, "Not Found", "There is no such site here.")
_AWAY = _plain(503, "Service Unavailable", "We cannot write it down just now. Please try again soon.")


def _path(name: str, description: str, example: str) -> dict[str, Any]:
    # Not as an argument of the route: FastAPI would promise errors of its own that never come.
    schema = {"name": name, "in": "path", "required": True, "description": description, "schema": _TEXT}
    return {"parameters": [{**schema, "example": example}]}


_SLUG = _path("slug", "The site's.", "pet_care")
_LINK = _path("token", "What a link in a mail ends in.", "0f1e2d3c.aSV7qg.5vEw")

TOKEN: dict[str, Any] = {
    "openapi_extra": _SLUG,
    "response_model": Token,
    "summary": "A token for a form",
    "description": "A form that is sent less than 2 seconds after its token was made is taken for a machine's.",
    "responses": {404: _NO_SITE, 503: _AWAY},
}

CHALLENGE: dict[str, Any] = {
    "openapi_extra": _SLUG,
    "response_model": Challenge,
    "summary": "A proof of work for a form",
    "description": (
        "Its solution, `{algorithm, challenge, number, salt, signature}` as JSON in base64, is the form's field "
        "`altcha`. It is good for 10 minutes, and for one signup."
    ),
    "responses": {404: _NO_SITE},
}


def _pages(**descriptions: str) -> dict[int | str, dict[str, Any]]:
    text = {"text/html": {"schema": _TEXT}, "text/plain": {"schema": _TEXT}}
    pages: dict[int | str, dict[str, Any]] = {
        int(status.removeprefix("status")): {"description": description, "content": text}
        for status, description in descriptions.items()
    }
    return {**pages, 503: _AWAY}


_NOT_OURS = "Not a link of ours, or not the whole of it"

CONFIRM_PAGE: dict[str, Any] = {
    "openapi_extra": _LINK,
    "response_class": HTMLResponse,
    "summary": "The page that asks to confirm",
    "responses": _pages(
        status200="The page, or an offer of a new link. Nothing changes",
        status404=_NOT_OURS,
        status410="The signup is not kept any more",
    ),
}
CONFIRM: dict[str, Any] = {
    **CONFIRM_PAGE,
    "summary": "Confirm a signup",
    "description": "Again changes nothing. For a link that is older than 7 days, `again=1` asks for a new one.",
    "responses": _pages(
        status200="Confirmed; or, for an old link, a page that offers a new one, or says that it is on its way",
        status404=_NOT_OURS,
        status410="The signup is not kept any more",
    ),
}
UNSUBSCRIBE_PAGE: dict[str, Any] = {
    "openapi_extra": _LINK,
    "response_class": HTMLResponse,
    "summary": "The page that asks whether to unsubscribe",
    "responses": _pages(status200="The page. Nothing changes", status404=_NOT_OURS),
}
UNSUBSCRIBE: dict[str, Any] = {
    **UNSUBSCRIBE_PAGE,
    "summary": "Unsubscribe",
    "description": "A person's click, or a mail program's (RFC 8058). Links never expire, and again changes nothing.",
    "responses": _pages(status200="Unsubscribed; in plain text unless `Accept` prefers HTML", status404=_NOT_OURS),
}
