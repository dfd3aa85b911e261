"""What the OpenAPI document says of the API, where the code alone does not: bodies, errors, examples."""

from typing import Any

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
        "requestBody": {
            "required": True,
            "content": {
                media_type: {"schema": _FIELDS, "example": _EXAMPLE}
                for media_type in ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
            },
        }
    },
    "responses": {
        202: {"description": "Accepted", "content": {"application/json": {"example": {"status": "accepted"}}}},
        303: {
            "description": "Accepted (plain form): see the thank-you page",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        400: _plain(400, "Bad Request", "The body is not valid JSON."),
        404: _plain(404, "Not Found", "There is no such site here."),
        413: _plain(413, "Content Too Large", "The request body may have at most 64 KiB."),
        415: _plain(
            415,
            "Unsupported Media Type",
            "Send the form as one of application/json, application/x-www-form-urlencoded, multipart/form-data.",
        ),
        422: _problem("A field is missing or wrong", _INVALID),
        503: _plain(503, "Service Unavailable", "We cannot write it down just now. Please try again soon."),
    },
}
