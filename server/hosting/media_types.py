"""What a file is, by its name: from a table of our own, since the machine's differs (Windows calls .js text/plain).

The table, media_types.json, is made by `server.hosting.mime_db`. Knows names and media types, never a file's content.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

UNKNOWN = "application/octet-stream"

TABLE = Path(__file__).with_name("media_types.json")

# Text, or numbers nearly as compressible as text, of which mime-db says nothing.
_COMPRESSIBLE = frozenset(
    {
        "application/json5",
        "application/node",
        "application/pgp-keys",
        "application/sql",
        "application/vnd.apple.mpegurl",
        "application/x-subrip",
        "font/collection",
        "model/mtl",
        "model/obj",
        "model/stl",
    }
)


@dataclass(frozen=True, slots=True)
class _Table:
    types: dict[str, str]
    compressible: frozenset[str]


@cache
def _table() -> _Table:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    return _Table(table["types"], frozenset(table["compressible"]))


def guess(name: str) -> str:
    """The Content-Type for a file of this name or path, by its last extension alone, whose case does not matter.

    What is compressed already is what it is (application/gzip), not a coding of something else (RFC 9110 section 8.4).
    """
    stem, _, extension = name.rpartition("/")[2].rpartition(".")
    media_type = _table().types.get(extension.lower(), UNKNOWN) if stem else UNKNOWN
    return f"{media_type}; charset=utf-8" if textual(media_type) else media_type


def compressible(media_type: str) -> bool:
    """Whether a content of this type, parameters and case aside, is worth a try to compress.

    Not application/octet-stream: what nobody knows is a download, packed already as a rule, and one that was broken
    off can go on only where its first part was not compressed.
    """
    essence = _essence(media_type)
    return textual(essence) or essence in _COMPRESSIBLE or essence in _table().compressible


def is_html(media_type: str) -> bool:
    """Whether it is HTML."""
    return media_type.startswith("text/html")


def is_document(media_type: str) -> bool:
    """Whether a browser shows it as a page that could run scripts: HTML and XML.

    That is where a Content-Security-Policy counts.
    """
    essence = _essence(media_type)
    return essence == "text/html" or _xml(essence)


def _essence(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()


def textual(essence: str) -> bool:
    """Whether a type without parameters is text that may say its charset (RFC 8259 forgoes it, and is not hurt)."""
    return essence.startswith("text/") or essence == "application/json" or essence.endswith("+json") or _xml(essence)


def _xml(essence: str) -> bool:
    return essence in ("application/xml", "text/xml") or essence.endswith("+xml")
