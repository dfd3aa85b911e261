"""Languages: a catalogue for each file `<locale>.po` beside this one, read at the first use. English is in the source.

A leaf. The texts of sites are their own; this is for what the server says.
"""

from functools import cache
from io import BytesIO
from pathlib import Path

from babel import Locale, UnknownLocaleError
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations

SOURCE = "en"
_FOLDER = Path(__file__).parent


def available() -> list[str]:
    """The locales that there are texts in, as Babel writes them (`zh_Hans`)."""
    return [SOURCE, *sorted(file.stem for file in _FOLDER.glob("*.po"))]


@cache
def match(tag: str) -> str | None:
    """The locale of ours for a language tag (RFC 5646): that of its language and script. None where there is none.

    `zh` and `zh-CN` are written in Simplified Chinese, `zh-TW` is not: the script follows from the place (CLDR).
    """
    wanted = _maximal(tag)
    return next((name for name in available() if wanted and _maximal(name.replace("_", "-")) == wanted), None)


def _maximal(tag: str) -> tuple[str, str | None] | None:
    try:
        locale = Locale.parse(tag, sep="-")
    except (ValueError, UnknownLocaleError):
        return None
    from babel.core import get_global

    likely = get_global("likely_subtags")
    for known in (str(locale), f"{locale.language}_{locale.territory}", locale.language):
        if locale.script is None and known in likely:
            return locale.language, Locale.parse(likely[known]).script
    return locale.language, locale.script


@cache
def catalogue(tag: str) -> NullTranslations:
    """The texts for a language tag; those of the source where there are none for it."""
    locale = match(tag)
    if locale is None or locale == SOURCE:
        return NullTranslations()
    compiled = BytesIO()
    with (_FOLDER / f"{locale}.po").open("rb") as file:
        write_mo(compiled, read_po(file, locale=locale))
    compiled.seek(0)
    return Translations(compiled)
