"""The two files with rules for a site, `_redirects` and `_headers`: text in, values out.

Owns their syntax, which Netlify and Cloudflare Pages share, and what of it is refused. Paths in them start at the
site's root. Knows no files, no snapshot, and not where a site is mounted.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from unicodedata import category
from urllib.parse import quote

from server.hosting.paths import NAME, PCHAR, Pattern, canonical, checked, pattern, respelled

__all__ = ["HeaderRule", "Pattern", "Redirect", "RulesError", "apply", "headers", "redirects"]

STATUSES = (301, 302, 303, 307, 308, 200, 404, 410)
# The server answers for these itself: a rule about one would contradict the answer or its framing.
RESERVED_HEADERS = frozenset(
    {"content-length", "content-encoding", "content-range", "transfer-encoding", "connection", "keep-alive", "upgrade"}
    | {"proxy-connection", "trailer", "te", "date", "etag", "last-modified", "accept-ranges", "location", "host"}
    | {"x-process-time"}
)

_ABSOLUTE = re.compile(r"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?://)(?P<host>[^/?#]*)(?P<rest>.*)")
_HOST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?(?::[0-9]{1,5})?")
_PARTS = re.compile(r"([^?#]*)((?:\?[^#]*)?)((?:#.*)?)")
_BROKEN = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DOTS = re.compile(r"(?:\.|%2[Ee]){1,2}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# "&" and its like would begin another parameter of a query, or mean a space.
_IN_QUERY = "/?" + re.sub("[&=+;]", "", PCHAR)

_Problems = list[tuple[int, str]]


class RulesError(Exception):
    """A file with rules that cannot be followed; `problems` has a line each, beginning with file and line number."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Redirect:
    """A line of `_redirects`. `target` is percent-encoded, with `:name` and `:splat` still in it.

    `status` is one of STATUSES; with 200, 404 and 410 the target is the page to answer with. `force`: also where a
    file has this path. `where` names file and line.
    """

    source: Pattern
    target: str
    status: int
    force: bool
    where: str = field(default="", compare=False)

    @property
    def local(self) -> bool:
        """Whether the target is a path of the site, no address elsewhere."""
        return self.target.startswith("/")

    @property
    def depends(self) -> bool:
        """Whether the target is another for each path."""
        return NAME.search(self.target) is not None

    def resolve(self, captured: Mapping[str, str]) -> str:
        """The target with the pieces put in, whatever they hold: plain ASCII, fit for a Location.

        A local target stays local: pieces are encoded, so that none brings a backslash, "?", "#", space or line end,
        and then the whole path loses its empty, "." and ".." segments. So it begins with one slash, never with "//"
        or "/\\", and leads nowhere above the site. In an absolute target pieces stand behind the host only.
        """
        path, query, fragment = _parts(self.target)
        path = _filled(path, captured, "/" + PCHAR)
        return "".join(
            (
                _settled(path) if self.local else path,
                _filled(query, captured, _IN_QUERY),
                _filled(fragment, captured, "/?" + PCHAR),
            )
        )


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """A block of `_headers`. Names are in lower case; what a block removes is what came before it."""

    pattern: Pattern
    set: tuple[tuple[str, str], ...]
    remove: frozenset[str]


def redirects(text: str, file: Path) -> tuple[Redirect, ...]:
    """The rules of a `_redirects`, in their order. Raises RulesError with every bad line."""
    problems: _Problems = []
    rules: dict[Pattern, tuple[int, Redirect]] = {}
    for number, line in _lines(text):
        fields = re.sub(r"(?:^|\s)#.*", "", line).split()
        with _noting(problems, number):
            if not fields:
                continue
            rule = _redirect(fields)
            if rule.source in rules:
                raise ValueError(f"is never reached: line {rules[rule.source][0]} is about the same path")
            rules[rule.source] = number, replace(rule, where=f"{file}:{number}")
    _raise(problems, file)
    return tuple(rule for _, rule in rules.values())


def headers(text: str, file: Path) -> tuple[HeaderRule, ...]:
    """The rules of a `_headers`, in their order. Raises RulesError with every bad line."""
    problems: _Problems = []
    blocks: list[_Block] = []
    for number, line in _lines(text):
        with _noting(problems, number):
            if line.strip() and not line.strip().startswith("#"):
                _take(line, number, blocks)
    problems += [(block.number, "is a path without headers") for block in blocks if block.pattern and not block.lines]
    _raise(problems, file)
    return tuple(
        HeaderRule(block.pattern, tuple(block.set), frozenset(block.remove)) for block in blocks if block.pattern
    )


def apply(rules: Iterable[HeaderRule], path: str, defaults: Mapping[str, str]) -> dict[str, str]:
    """The header fields of the answer to `path` (canonical, from the site's root). Names in `defaults` are lower-case.

    What rules set replaces the default, but adds to that of Vary; what several set is joined with ", ". What a rule
    removes is the default and what rules before it set.
    """
    found = {"vary": defaults["vary"]} if "vary" in defaults else {}
    kept = dict(defaults)
    for rule in rules:
        if rule.pattern.match(path) is None:
            continue
        for name in rule.remove:
            found.pop(name, None)
            kept.pop(name, None)
        for name, value in rule.set:
            found[name] = f"{found[name]}, {value}" if name in found else value
    return {**kept, **found}


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(): it also ends lines where no editor does, and numbers would be wrong.
    return enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), 1)


@contextmanager
def _noting(problems: _Problems, number: int) -> Iterator[None]:
    """What is wrong with a line is noted, so that all bad lines are told at once."""
    try:
        yield
    except ValueError as error:
        problems.append((number, str(error)))


def _raise(problems: _Problems, file: Path) -> None:
    if problems:
        raise RulesError([f"{file}:{number}: {problem}" for number, problem in sorted(problems)])


# _redirects


def _redirect(fields: list[str]) -> Redirect:
    if strange := next((word for word in fields[1:] if re.match(r"[A-Za-z_][\w.-]*=", word)), None):
        raise ValueError(f"{strange!r}: query parameters and conditions (Country, Language, Role) are not supported")
    if len(fields) < 2 or re.fullmatch(r"[0-9]+!?", fields[1]):
        raise ValueError("has no target: a line is `/path /target` or `/path /target status`")
    if len(fields) > 3:
        raise ValueError("has too many words: a line is `/path /target status`; a space in a path is written %20")
    source, (status, force) = pattern(fields[0]), _status(fields[2] if len(fields) > 2 else "301")
    rule = Redirect(source, _target(fields[1], source), status, force)
    _check(rule)
    return rule


def _status(text: str) -> tuple[int, bool]:
    code = text.removesuffix("!")
    if code not in map(str, STATUSES):
        raise ValueError(f"the status {text!r} is none of {', '.join(map(str, STATUSES))} (with ! to go before files)")
    return int(code), text.endswith("!")


def _check(rule: Redirect) -> None:
    """Raises ValueError for what each part allows, but not both together."""
    path, query, fragment = _parts(rule.target)
    if rule.status < 300 or rule.status >= 400:
        if not rule.local:
            raise ValueError(f"status {rule.status} is no proxy: it answers with a page of this site")
        if query or fragment:
            raise ValueError(f"status {rule.status} answers with a page of this site: its path has no ? or #")
    elif path == rule.source.text.replace("*", ":splat") or (rule.source.literal or "") == canonical(path):
        # Also with another query: rules do not look at it, and the browser would come back for ever.
        raise ValueError("redirects a path to itself: a loop")


def _target(text: str, source: Pattern) -> str:
    if any(category(char) in ("Cc", "Cs") for char in text) or "\\" in text or _BROKEN.search(text):
        raise ValueError(f"the target {text!r} has a control character, a backslash or a broken %")
    absolute = _ABSOLUTE.fullmatch(text)
    if not absolute and (not text.startswith("/") or text.startswith("//")):
        raise ValueError(f"the target {text!r} is neither a path (/…, but not //…) nor an address (https://…)")
    unknown = set(NAME.findall(text)) - source.names
    if absolute:
        _check_host(absolute["host"])
    if unknown:
        raise ValueError(
            f"the target has :{min(unknown)}, which the path has not (:splat is for a * there; a colon itself is %3A)"
        )
    return _elsewhere(text) if absolute else _here(text)


def _check_host(host: str) -> None:
    if NAME.search(host):
        raise ValueError(f"the target's host {host!r} has a placeholder: visitors could choose where it leads")
    if not _HOST.fullmatch(host):
        raise ValueError(f"the target's host {host!r} is no plain host name (no user, no spaces; write é as xn--…)")


def _here(target: str) -> str:
    path, query, fragment = _parts(target)
    checked(path)
    return _spelled(path, _local_piece) + _elsewhere(query) + _elsewhere(fragment)


def _local_piece(text: str) -> str:
    # An encoded colon stays so where it would otherwise begin a placeholder.
    return re.sub(":(?=[A-Za-z])", "%3A", respelled(text) or "")


def _elsewhere(target: str) -> str:
    path, query, fragment = _parts(target)
    path, encode = _spelled(path, _encoder("/[]" + PCHAR)), _encoder("/?" + PCHAR)
    return path + _spelled(query, encode) + fragment[:1] + _spelled(fragment[1:], encode)


def _parts(target: str) -> tuple[str, str, str]:
    """Path (with scheme and host), query and fragment, the last two with their first character."""
    found = _PARTS.fullmatch(target)
    return (found[1], found[2], found[3]) if found else (target, "", "")


def _spelled(text: str, encode: Callable[[str], str]) -> str:
    pieces = NAME.split(text)
    return "".join(f":{piece}" if index % 2 else encode(piece) for index, piece in enumerate(pieces))


def _encoder(safe: str) -> Callable[[str], str]:
    """Encodes what is not in `safe`, not twice what is encoded."""
    return lambda text: quote(_BROKEN.sub("%25", text), safe=safe + "%", errors="replace")


def _filled(text: str, captured: Mapping[str, str], safe: str) -> str:
    encode = _encoder(safe)
    return NAME.sub(lambda name: encode(captured.get(name[1], "")), text)


def _settled(path: str) -> str:
    segments = path.split("/")
    kept = [segment for segment in segments if segment and not _DOTS.fullmatch(segment)]
    return "/" + "/".join(kept) + ("/" if kept and kept[-1] != segments[-1] else "")


# _headers


@dataclass(slots=True)
class _Block:
    number: int
    pattern: Pattern | None = None
    lines: int = 0
    set: list[tuple[str, str]] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)


def _take(line: str, number: int, blocks: list[_Block]) -> None:
    """Puts a line into the block to which it belongs, or begins one with it. Raises ValueError."""
    text = line.strip()
    if line[0] not in " \t":
        if not text.startswith("/") and re.match(r"!|[^/]*:(?!/)", text):
            raise ValueError(f"{text!r}: a header is indented, below the path that it is for")
        blocks.append(_Block(number))  # before the path is looked at: what follows belongs to it even if it is bad
        blocks[-1].pattern = _header_path(text)
        return
    if not blocks:
        raise ValueError("a header before any path")
    block = blocks[-1]
    block.lines += 1
    name, value = _header(text)
    if value is None:
        block.remove.append(name)
    else:
        block.set.append((name, value))


def _header_path(text: str) -> Pattern:
    if len(text.split()) > 1:
        raise ValueError(f"the path {text!r} has a space, which is written %20 (and a comment has a line of its own)")
    return pattern(text, anywhere=True)


def _header(text: str) -> tuple[str, str | None]:
    """Name in lower case, and value; None: to be removed."""
    if text.startswith("!"):
        return _header_name(text[1:].strip(), removed=True), None
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"{text!r} is no header: `Name: value`, or `! Name` to remove one (paths are not indented)")
    value = value.strip(" \t")
    if not re.fullmatch(r"[ -~]+", value):
        raise ValueError(f"the value of {name} is empty, or has a control character or one that is not ASCII")
    return _header_name(name), value


def _header_name(name: str, *, removed: bool = False) -> str:
    lower = name.lower()
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header (RFC 9110 section 5.6.2)")
    if lower in RESERVED_HEADERS or (removed and lower == "vary"):
        raise ValueError(f"{name} is the server's own to say")
    if lower == "set-cookie":
        raise ValueError("Set-Cookie cannot be on an answer that is the same for all and cached")
    return lower
