"""What is known of a post besides its fields: from where, how fast, with which proof, and whether it is repeated."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from server.form import Form
from server.i18n import Text
from server.signing import BadToken, Keys
from server.signup import Repeat, Visit
from server.web import proof
from server.web.problems import Problem

# Seconds. Nobody fills in a form in less than the first; a page may lie open for the second.
TOO_FAST = 2
STALE = 24 * 3600

_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')  # RFC 8941 section 3.3.3
_BARE = re.compile(r"[!#-+\--~]+")  # no quote, and no comma: that is two headers in one


def token(keys: Keys, site: str) -> str:
    """What the script adds to a form of `site`: the time at which it began, signed."""
    return keys.stamp("form", site)


def visit(request: Request, keys: Keys, network: str, site: str, fields: Mapping[str, Any], form: Form) -> Visit:
    """What this post tells. Raises Problem 400 for a wrong Idempotency-Key."""
    age = _age(keys, site, fields.get("_token"))
    return Visit(
        network=network,
        has_token=age is not None,
        spam=_spam(fields, age),
        proof=_proof(keys, site, network, fields),
        repeat=_repeat(request, site, form),
    )


def _age(keys: Keys, site: str, text: object) -> float | None:
    """Of the form's token, in seconds; None where it has none that counts, which is never held against a visitor."""
    try:
        of, age = keys.read_stamped("form", text if isinstance(text, str) else "")
    except BadToken:
        return None
    return age if of == site and 0 <= age <= STALE else None


def _spam(fields: Mapping[str, Any], age: float | None) -> str | None:
    if fields.get("website"):
        return "honeypot"
    return "too fast" if age is not None and age < TOO_FAST else None


def _proof(keys: Keys, site: str, network: str, fields: Mapping[str, Any]) -> str | None:
    if found := proof.solved(keys, site, fields.get("altcha")):
        return found
    try:
        return proof.waited(keys, site, network, fields.get("_token"))
    except proof.Early:
        return None


def _repeat(request: Request, site: str, form: Form) -> Repeat | None:
    """From the header Idempotency-Key (draft-ietf-httpapi-idempotency-key-header)."""
    if not (given := request.headers.getlist("idempotency-key")):
        return None
    key = _key(given)
    # What the visitor entered: a token or a proof is another each time.
    return Repeat(_hash([site, key]), _hash([form.email, form.name, form.answers]))


def _key(given: list[str]) -> str:
    found = _STRING.fullmatch(given[0])
    key = re.sub(r"\\(.)", r"\1", found[1]) if found else given[0]
    if len(given) != 1 or not 1 <= len(key) <= 255 or not (found or _BARE.fullmatch(key)):
        raise Problem(
            400, Text('The header Idempotency-Key must be a string like "8e03978e", of at most 255 characters.')
        )
    return key


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
