"""The words of form.js: one script for pages in any language, so it carries what every catalogue has for it."""

import json
from functools import cache

from babel import Locale

from server import i18n
from server.i18n.extract import words

SCRIPT = "form.js"

_EMPTY = b"const TRANSLATIONS = {};"
# Every integer's category of plural comes up among the first hundreds (CLDR), or is "other" to the script.
_COUNTS = range(200)


@cache  # sites are read again and again, the script is the same
def translated(script: bytes) -> bytes:
    """The script with translations of what it says, by language and script. Raises ValueError: no place for them."""
    if script.count(_EMPTY) != 1:
        raise ValueError(f"{SCRIPT} must have one line {_EMPTY.decode()}")
    texts = {i18n.script(name): _table(name, script) for name in i18n.available() if name != i18n.SOURCE}
    return script.replace(_EMPTY, f"const TRANSLATIONS = {json.dumps(texts, ensure_ascii=False)};".encode())


def _table(name: str, script: bytes) -> dict[str, object]:
    return {_key(msgid): _translation(name, msgid) for msgid in words(script)}


def _key(msgid: str | tuple[str, ...]) -> str:
    return msgid if isinstance(msgid, str) else msgid[0]


def _translation(name: str, msgid: str | tuple[str, ...]) -> object:
    texts = i18n.catalogue(name)
    if isinstance(msgid, str):
        return texts.gettext(msgid)
    category = Locale.parse(name, sep="-").plural_form
    return {category(count): texts.ngettext(msgid[0], msgid[1], count) for count in reversed(_COUNTS)}
