"""Mail templates: the built-in ones, each of which a site may override with a file of the same name.

A mail of kind K is `K.subject.txt`, `K.txt` and `K.html`. HTML is escaped, an undefined name is an error, and all of
them are rendered with sample data at start, so that a broken one is found then and not with the first visitor.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound

from server import log
from server.mail.message import Content, one_line

_log = log.get(__name__)

BUILT_IN = Path(__file__).parent / "templates"
_IN_TEMPLATE = ("top-level template code", "root")
_SUFFIXES = {".subject.txt": "subject", ".txt": "text", ".html": "html"}


class TemplateProblem(Exception):
    """A template that does not compile or render; says which file, which line and why."""


class _Folder(FileSystemLoader):
    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        try:
            return super().get_source(environment, template)
        except TemplateNotFound:  # an OSError too; the next folder may have it
            raise
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateProblem(f"{self.searchpath[0]}/{template}: {error}") from error


def _environment(folders: list[Path]) -> Environment:
    return Environment(
        loader=ChoiceLoader([_Folder(folder) for folder in folders]),
        # By our own names: select_autoescape() is off for anything that does not end in html, htm or xml.
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


class Templates:
    """The compiled templates of one site: what `overrides` has, else the built-in ones. Immutable."""

    def __init__(self, overrides: Path | None = None) -> None:
        self._built_in = _environment([BUILT_IN])
        self._own = _environment([overrides, BUILT_IN]) if overrides and overrides.is_dir() else self._built_in

    def check(self, kind: str, sample: Mapping[str, object]) -> None:
        """Renders `kind` with `sample`. Raises TemplateProblem."""
        _render(self._own, kind, sample)

    def render(self, kind: str, values: Mapping[str, object]) -> Content:
        """The mail of this kind. Where the site's own template fails on real data, the built-in one is used.

        A lead is worth more than a template: the failure is logged, and the mail still goes.
        """
        try:
            return _render(self._own, kind, values)
        except TemplateProblem as problem:
            _log.error("template.failed", kind=kind, reason=str(problem))
            return _render(self._built_in, kind, values)


def _render(environment: Environment, kind: str, values: Mapping[str, object]) -> Content:
    made: dict[str, str] = {}
    for suffix, part in _SUFFIXES.items():
        name = kind + suffix
        try:
            made[part] = environment.get_template(name).render(values)
        except TemplateProblem:
            raise
        except TemplateError as error:
            raise TemplateProblem(f"{_place(name, error)}: {error.message}") from error
        except Exception as error:  # a template is code: it may fail in any way
            raise TemplateProblem(f"{_place(name, error)}: {error}") from error
    if not (subject := one_line(made["subject"])):
        raise TemplateProblem(f"{environment.get_template(f'{kind}.subject.txt').filename}: renders to nothing")
    return Content(subject, made["text"], made["html"])


def _place(name: str, error: Exception) -> str:
    """File and line. Jinja maps a traceback's lines to the template's, so the last frame in one is the place."""
    file, line = getattr(error, "filename", None), getattr(error, "lineno", None)
    trace = None if file else error.__traceback__
    while trace is not None:
        if "__jinja_template__" in trace.tb_frame.f_globals or trace.tb_frame.f_code.co_name in _IN_TEMPLATE:
            file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    return f"{file or name}:{line}" if line else str(file or name)
