"""Languages: a catalogue for each file `<locale>.po` beside this one, read at the first use. English is in the source.

A leaf. The texts of sites are their own; this is for what the server says. `extract` finds it in the source.
"""

import re
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path

from babel.core import get_global, parse_locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations

SOURCE = "en"
FOLDER = Path(__file__).parent

# A browser sends up to ten; whatever comes after these is not what the visitor would rather have.
_MOST_RANGES = 20
_RANGE = re.compile(r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,4})\s*(?:;\s*[qQ]\s*=\s*([01](?:\.[0-9]{0,3})?)\s*)?")


class Text(str):
    """What the server says, in English, which can be said in other languages too: `msgid`, filled with `arguments`.

    An argument may be such a text itself. `english` stands in English in the msgid's place where it can say more.
    """

    msgid: str
    arguments: dict[str, object]

    def __new__(cls, msgid: str, /, *, english: str = "", **arguments: object) -> "Text":
        self = super().__new__(cls, english or _filled(msgid, arguments))
        self.msgid, self.arguments = msgid, arguments
        return self

    def within(self, texts: NullTranslations) -> str:
        """As `texts` say it; in English where they do not know it."""
        if (found := texts.gettext(self.msgid)) == self.msgid:
            return str(self)
        values = {name: translated(value, texts) for name, value in self.arguments.items()}
        return _filled(found, values)


def _filled(msgid: str, arguments: dict[str, object]) -> str:
    return msgid.format(**arguments) if arguments else msgid


def translated(value: object, texts: NullTranslations) -> object:
    """A Text as `texts` say it, anything else as it is."""
    return value.within(texts) if isinstance(value, Text) else value


@cache
def available() -> tuple[str, ...]:
    """The language tags that there are texts in."""
    return (SOURCE, *sorted(file.stem.replace("_", "-") for file in FOLDER.glob("*.po")))


def script(tag: str) -> str | None:
    """A language tag's (RFC 5646) language and script, as `zh-Hans`: what a text is written in. None: not a tag.

    `zh` and `zh-CN` are written in Simplified Chinese, `zh-TW` is not: the script follows from the place (CLDR).
    """
    try:
        language, territory, script, *_ = parse_locale(tag, sep="-")
    except ValueError:
        return None
    likely = get_global("likely_subtags")
    whole = likely.get(f"{language}_{territory}") or likely.get(language) or language
    return f"{language}-{script or parse_locale(whole)[2] or ''}"


@lru_cache(1000)  # bounded, for anybody may ask for a tag of his own
def match(tag: str) -> str | None:
    """The one of `available` for a language tag: that of its language and script. None where there is none."""
    wanted = script(tag)
    return next((name for name in available() if wanted and script(name) == wanted), None)


def negotiate(accept_language: str, default: str) -> str:
    """The one of `available` that is best for a client (RFC 9110 section 12.5.4), else that of the tag `default`,
    else English. Nobody is refused: a language that he reads badly is better than none.
    """
    weights: dict[str, float] = {}
    for item in accept_language[:1000].split(",")[:_MOST_RANGES]:
        if (found := _RANGE.fullmatch(item)) and (name := match(found[1])):
            weights.setdefault(name, float(found[2] or 1))
    best = max(weights, key=weights.__getitem__, default=SOURCE)  # of equals the first
    return best if weights.get(best) else match(default) or SOURCE


def catalogue(tag: str) -> NullTranslations:
    """The texts for a language tag; those of the source where there are none for it."""
    return _read(match(tag) or SOURCE)


@cache
def _read(name: str) -> NullTranslations:
    if name == SOURCE:
        return NullTranslations()
    compiled = BytesIO()
    locale = name.replace("-", "_")
    with (FOLDER / f"{locale}.po").open("rb") as file:
        write_mo(compiled, read_po(file, locale=locale))
    compiled.seek(0)
    return Translations(compiled)
