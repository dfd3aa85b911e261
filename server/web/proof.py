"""What a visitor can show under attack: a puzzle that a script has solved (ALTCHA's protocol, version 1), or a button
that was waited for, where there is no script.

Each is signed, for one site and a short time; that it is good for one signup only is for `signup.register` to see to.
"""

import base64
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, cast

from altcha.v1 import ChallengeOptions, PayloadType, create_challenge, verify_solution
from pydantic import BaseModel, ConfigDict, Field

from server.signing import BadToken, Keys

CHALLENGE_MINUTES = 10
# Half of it on the average: a tenth of a second on a desktop, a second on an old phone.
MAX_NUMBER = 100_000

# Seconds.
WAIT = 5
WAITED = 3600

_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_SALT = re.compile(r"[0-9a-f]{24}\?expires=[0-9]{1,12}&site=([a-z0-9_-]{1,63})&")


class _Solution(BaseModel):
    """What comes back. The library believes more than we do: a number that is text moves the border between what is
    signed of the salt and of the number, which must be one (CVE-2025-68113)."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    algorithm: Literal["SHA-256"]
    challenge: _Hash
    number: Annotated[int, Field(ge=0, le=MAX_NUMBER)]
    salt: Annotated[str, Field(max_length=150)]
    signature: _Hash


def challenge(keys: Keys, site: str) -> dict[str, object]:
    """A puzzle for a form of `site`, as ALTCHA's clients know it."""
    options = ChallengeOptions(
        algorithm="SHA-256",
        max_number=MAX_NUMBER,
        hmac_key=_key(keys),
        expires=datetime.now(UTC) + timedelta(minutes=CHALLENGE_MINUTES),
        params={"site": site},
    )
    made = create_challenge(options)
    return {
        "algorithm": made.algorithm,
        "challenge": made.challenge,
        "maxnumber": made.max_number,
        "salt": made.salt,
        "signature": made.signature,
    }


def solved(keys: Keys, site: str, payload: object) -> str | None:
    """What names the puzzle that the field `altcha` solves; None where it solves none of this site's."""
    if not isinstance(payload, str):
        return None
    try:
        solution = _Solution.model_validate_json(base64.b64decode(payload, validate=True))
    except ValueError:  # pydantic's is one too
        return None
    salt = _SALT.fullmatch(solution.salt)
    if salt is None or salt[1] != site:
        return None
    right, _ = verify_solution(cast(PayloadType, solution.model_dump()), _key(keys))
    return keys.digest("proof", solution.challenge) if right else None


def _key(keys: Keys) -> str:
    return keys.secret("altcha")


def button(keys: Keys, site: str, network: str) -> str:
    """The token of a new button for a visitor from `network`."""
    return keys.stamp("wait", f"{_place(keys, site, network)}.{secrets.token_hex(8)}")


class Early(Exception):
    """The button was pressed before its time; its token will do later."""


def waited(keys: Keys, site: str, network: str, token: object) -> str | None:
    """What names the button that was waited for; None where the token is of none, of another's, or too old.

    Raises Early.
    """
    try:
        value, seconds = keys.read_stamped("wait", token if isinstance(token, str) else "")
    except BadToken:
        return None
    if value.rpartition(".")[0] != _place(keys, site, network) or seconds > WAITED:
        return None
    if seconds < WAIT:
        raise Early
    # Not of the token: one signature can be written in several ways (base64), and each would be good for a signup.
    return keys.digest("proof", value)


def _place(keys: Keys, site: str, network: str) -> str:
    return f"{site}.{keys.digest('network', network)}"
