"""Request bodies as a flat dict of fields: JSON, urlencoded and multipart. What cannot be one is a Problem."""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.requests import Request

from server.i18n import Text
from server.web.problems import Problem

_URLENCODED = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
FORM_TYPES = frozenset({_URLENCODED, _MULTIPART})
MAX_FIELDS = 200


def media_type(request: Request) -> str:
    """The request's media type, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_form(request: Request) -> bool:
    """Whether a browser's plain form sent this."""
    return media_type(request) in FORM_TYPES


async def read(request: Request) -> dict[str, Any]:
    """The fields of the body. Raises Problem 400 for what is malformed, 415 for another type; HTTPException 413."""
    _check_charset(request)
    kind = media_type(request)
    if kind == "application/json":
        return _object(await request.body())
    if kind == _URLENCODED:
        return _flat(_pairs_of(await request.body()))
    if kind == _MULTIPART:
        async with request.form(max_files=MAX_FIELDS, max_fields=MAX_FIELDS, max_part_size=64 * 1024) as form:
            return _flat(form.multi_items())
    accepted = ", ".join(["application/json", *sorted(FORM_TYPES)])
    raise Problem(
        415, Text("Send the form as one of {accepted}.", accepted=accepted), headers={"accept-post": accepted}
    )


def _check_charset(request: Request) -> None:
    # The parser below would take any codec that Python has, `undefined` and `unicode_escape` among them.
    _, parameters = parse_options_header(request.headers.get("content-type", ""))
    if parameters.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
        raise Problem(415, Text("Send the form in UTF-8."))


def _pairs_of(body: bytes) -> list[tuple[str, str]]:
    # Not request.form(): it reads UTF-8 that is not percent-encoded (curl sends it so) as Latin-1.
    try:
        return parse_qsl(body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except UnicodeDecodeError:
        raise Problem(400, Text("The form is not in UTF-8.")) from None
    except ValueError:
        raise Problem(400, Text("The form may have at most {count} fields.", count=MAX_FIELDS)) from None


def _flat(items: Iterable[tuple[str, str | UploadFile]]) -> dict[str, Any]:
    """Each field once: the last, where a form has one twice (a hidden one before a checkbox)."""
    fields: dict[str, Any] = {}
    for name, value in items:
        if not isinstance(value, str):
            raise Problem(400, Text("The field {name} is a file; files are not taken.", name=_shown(name)))
        fields[name] = value
    return fields


def _object(body: bytes) -> dict[str, Any]:
    try:
        # RecursionError: a thousand brackets, deep. ValueError: no JSON, no UTF-8, or a number of 5,000 digits.
        found = _JSON.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Problem(400, Text("The body is not valid JSON.")) from None
    if not isinstance(found, dict):
        raise Problem(400, Text("The body must be a JSON object with a member for each field."))
    return found


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Problem(400, Text("A member of the JSON object is given twice."))
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_constant)


def _shown(name: str) -> str:
    return json.dumps(name[:40])
