"""What the source has to say, found by Babel: `python -m server.i18n.extract` brings every catalogue in line with it.

A new language is an empty file `<locale>.po`, and then this.
"""

import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract, extract_from_dir
from babel.messages.pofile import read_po, write_po

from server.i18n import FOLDER

PACKAGE = FOLDER.parent
_METHODS = [("**/static/*.js", "javascript"), ("**.py", "python"), ("**/templates/**.*", "jinja2")]
_KEYWORDS = {**DEFAULT_KEYWORDS, "Text": None}

_PLACEHOLDER = re.compile(r"\{\w+\}|%\(\w+\)s")

# Nothing that changes by itself: no dates, no versions.
_HEAD = """\
msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\\n"
"Language: {}\\n"
"Plural-Forms: {}\\n"

"""


def template() -> Catalog:
    """Every text of the package, with the files that have it."""
    found = Catalog()
    for file, _, msgid, comments, context in extract_from_dir(PACKAGE, _METHODS, keywords=_KEYWORDS):
        found.add(msgid, locations=[(f"{PACKAGE.name}/{file}", 0)], auto_comments=comments, context=context)
    return found


def words(script: bytes) -> Iterator[str | tuple[str, ...]]:
    """The texts of a script; those that count are singular and plural."""
    for _, msgid, _, _ in extract("javascript", BytesIO(script)):
        yield msgid


def read(file: Path) -> Catalog:
    """The catalogue in `file`, whose name is its locale."""
    with file.open("rb") as content:
        return read_po(content, locale=file.stem)


def updated(catalogue: Catalog, found: Catalog) -> bytes:
    """The catalogue's file, in the order of the texts: what is new is untranslated, what was left out is gone."""
    catalogue.update(found, no_fuzzy_matching=True)
    body = BytesIO()
    write_po(body, catalogue, width=0, omit_header=True, sort_output=True, include_lineno=False, ignore_obsolete=True)
    return _HEAD.format(catalogue.locale, catalogue.plural_forms).encode() + body.getvalue()


def faults(catalogue: Catalog) -> list[str]:
    """What is not translated, and which translations have other placeholders than their texts."""
    problems = []
    for message in catalogue:
        ours, theirs = _each(message.id), _each(message.string)
        if message.id and not all(theirs):
            problems.append(f"{catalogue.locale}: not translated: {ours[0]}")
        elif any(_placeholders([text]) != _placeholders(ours) for text in theirs):
            problems.append(f"{catalogue.locale}: other placeholders: {ours[0]}")
    return problems


def _each(text: str | Iterable[str] | None) -> list[str]:
    return [text] if isinstance(text, str) else list(text or [""])


def _placeholders(texts: Iterable[str]) -> set[str]:
    return {found for text in texts for found in _PLACEHOLDER.findall(text)}


def main() -> None:
    """Writes the catalogues, and prints what there is to do in them."""
    found = template()
    for file in sorted(FOLDER.glob("*.po")):
        file.write_bytes(updated(read(file), found))
        print(*faults(read(file)), sep="\n")


if __name__ == "__main__":
    main()
