"""Plain text for reading: paragraphs in short lines, also in scripts that put no spaces between words."""

import re
import unicodedata

_WIDE = r"\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uff60"
_OPENING, _CLOSING = "（《「『【“‘", "，。！？：；、）》」』】”’…"
# What may stand alone on a line: a word or an address, or one wide character; never a closing mark without it.
_WORD = re.compile(rf"[{_OPENING}]*(?:[{_WIDE}]|[^\s{_WIDE}]+)[{_CLOSING}]*")


def wrap(text: str, columns: int = 72) -> str:
    """`text` with each of its lines broken to at most `columns`; a longer word, such as a link, is left whole."""
    return "".join(f"{broken}\n" for line in text.strip().splitlines() for broken in _broken(line, columns))


def _broken(line: str, columns: int) -> list[str]:
    lines, width, end = [""], 0, 0
    for word in _WORD.finditer(line):
        space = " " if word.start() > end and lines[-1] else ""
        wide = _columns(word.group())
        if lines[-1] and width + len(space) + wide > columns:
            lines.append("")
            width, space = 0, ""
        lines[-1] += space + word.group()
        width, end = width + len(space) + wide, word.end()
    return lines


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
