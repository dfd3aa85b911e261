"""What is to be published under one name: files, and the rules that the folder has for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from server.hosting import parts, rules
from server.hosting.files import SnapshotError, published
from server.hosting.shelf import Content

_Rule = TypeVar("_Rule")


@dataclass(frozen=True, slots=True)
class Source:
    """Files by name. `hosts` are domains whose root it is; `script` is an element for every page (development).

    `composed` are the contents of those files that are not published as they lie there. `compressed`: whether its
    files are worth the time that compressing takes.
    """

    name: str
    files: Mapping[str, Path]
    hosts: tuple[str, ...] = ()
    spa: bool = False
    redirects: tuple[rules.Redirect, ...] = ()
    headers: tuple[rules.HeaderRule, ...] = ()
    script: str = ""
    compressed: bool = True
    composed: Mapping[Path, Content] = field(default_factory=dict)


def read(
    name: str,
    folder: Path,
    hosts: tuple[str, ...] = (),
    spa: bool = False,
    script: str = "",
    shared: Path | None = None,
) -> Source:
    """What `folder` holds; its pages may include what is in `shared`. Raises SnapshotError with all that is wrong."""
    problems: list[str] = []
    files: Mapping[str, Path] = {}
    composed: Mapping[Path, Content] = {}
    try:
        files = published(folder)
        composed = parts.composed(files, shared) if shared else {}
    except SnapshotError as error:
        problems += error.problems
    redirects = _rules(folder / "_redirects", rules.redirects, problems)
    headers = _rules(folder / "_headers", rules.headers, problems)
    if problems:
        raise SnapshotError(problems)
    return Source(name, files, hosts, spa, redirects, headers, script, composed=composed)


def _rules(file: Path, parse: Callable[[str, Path], tuple[_Rule, ...]], problems: list[str]) -> tuple[_Rule, ...]:
    try:
        return parse(file.read_text(encoding="utf-8-sig"), file)
    except FileNotFoundError:
        return ()
    except rules.RulesError as error:
        problems += error.problems
    except OSError as error:
        problems.append(f"{file}: cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        problems.append(f"{file}: is not UTF-8")
    return ()
