"""Which files of a folder are published, and under which name. Knows paths; reads no file."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

# Rules for the host, not pages of the site.
RULES = frozenset({"_headers", "_redirects"})


class SnapshotError(Exception):
    """A folder that cannot be published; `problems` has a line each, naming the file."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def published(folder: Path) -> dict[str, Path]:
    """The files below `folder` by name: relative, with slashes, in NFC.

    Not published are names that begin with a dot, but for .well-known, and `_headers` and `_redirects`.
    Raises SnapshotError with everything that would be and cannot: a link that leads out of the folder or round in a
    circle, what is no file, a folder that is locked, a name that is not UTF-8, two names that are one in NFC.
    """
    found: dict[str, Path] = {}
    problems: list[str] = []
    # As strings and with os.path: the methods of Path raise where a link leads to itself or a folder is locked.
    root = os.path.realpath(folder)
    for name, file, problem in _walk(root, str(folder), "", (root,)):
        key = unicodedata.normalize("NFC", name)
        if problem:
            problems.append(f"{_printable(file)}: {problem}")
        elif key in found:
            problems.append(f"{file}: has the same name as {found[key].name!r} beside it, only written otherwise")
        else:
            found[key] = Path(file)
    if problems:
        raise SnapshotError(problems)
    return found


def _printable(file: str) -> str:
    return os.fsencode(file).decode("utf-8", "replace")


def _hidden(segment: str) -> bool:
    return (segment.startswith(".") and segment != ".well-known") or segment in RULES


def _walk(root: str, folder: str, prefix: str, parents: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """(name, file, what is wrong with it or "") for all below `folder`; `parents` are the real paths down to it."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        yield prefix, folder, f"cannot be read: {error.strerror}"
        return
    for entry in entries:
        name = prefix + entry.name
        if _hidden(entry.name):
            continue
        target = os.path.realpath(entry.path) if entry.is_symlink() else ""
        if target and not target.startswith(root + os.sep):
            yield name, entry.path, "is a link that leads out of the site"
        elif target and any(map(_hidden, target[len(root) + 1 :].split(os.sep))):
            yield name, entry.path, "is a link to what is not published"
        elif _printable(entry.path) != entry.path:
            yield name, entry.path, "has a name that is not UTF-8"
        elif os.path.isdir(entry.path):
            real = target or os.path.realpath(entry.path)
            if real in parents:
                yield name, entry.path, "is a link to a folder that it lies in"
            else:
                yield from _walk(root, entry.path, name + "/", (*parents, real))
        else:
            yield name, entry.path, "" if os.path.isfile(entry.path) else "is no file, or cannot be read"
