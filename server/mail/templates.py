"""Mail templates: the built-in ones, each of which a site may override with a file of the same name.

A mail of kind K is `K.subject.txt`, `K.txt` and `K.html`. HTML is escaped, an undefined name is an error, and all of
them are rendered with sample data at start, so that a broken one is found then and not with the first visitor. Styles
are written as a style sheet and put into the tags here, for many mail readers know no other way.
"""

from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from css_inline import CSSInliner, InlineError
from jinja2 import (
    BytecodeCache,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    StrictUndefined,
    TemplateError,
    TemplateNotFound,
)
from jinja2.bccache import Bucket

from server import log
from server.i18n import catalogue
from server.mail.contrast import ink
from server.mail.message import Content, one_line
from server.mail.plain import wrap

_log = log.get(__name__)

BUILT_IN = Path(__file__).parent / "templates"
KINDS = ("confirm", "already", "welcome", "notice", "digest")
# Gmail shows no more than 102 KB of a mail's HTML.
LONGEST = 102 * 1024
_IN_TEMPLATE = ("top-level template code", "root")
_SUFFIXES = {".subject.txt": "subject", ".txt": "text", ".html": "html"}


# What cannot stand in a tag (for dark mode, for narrow screens) stays in the style sheet.
_inliner = CSSInliner(keep_style_tags=True, remove_inlined_selectors=True, load_remote_stylesheets=False)


class TemplateProblem(Exception):
    """A template that does not compile or render; `place` says which file and line, the message why too."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place


class _Folder(FileSystemLoader):
    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        try:
            return super().get_source(environment, template)
        except TemplateNotFound:  # an OSError too; the next folder may have it
            raise
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateProblem(f"{self.searchpath[0]}/{template}", str(error)) from error


class _Compiled(BytecodeCache):
    """What was compiled before, by file, for as long as the file says the same: most sites share most templates."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if code := self._code.get(bucket.key):
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key] = bucket.bytecode_to_string()


_compiled = _Compiled()


class _Environment(Environment):
    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:
        return {**self.globals, **(d or {})}  # not a chain of them: each rendering copies it, and that is slow


def _environment(folders: list[Path], locale: str) -> Environment:
    made = _Environment(
        loader=ChoiceLoader([_Folder(folder) for folder in folders]),
        # By our own names: select_autoescape() is off for anything that does not end in html, htm or xml.
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        bytecode_cache=_compiled,  # all environments have the same options
        extensions=["jinja2.ext.i18n"],
    )
    made.filters |= {"ink": ink, "wrap": wrap}
    made.install_gettext_translations(catalogue(locale), newstyle=True)  # type: ignore[attr-defined]
    return made


class Templates:
    """The compiled templates of one site: what `overrides` has, else the built-in ones, in the language of the site.
    Immutable."""

    def __init__(self, overrides: Path | None = None, locale: str = "en") -> None:
        self._built_in = _environment([BUILT_IN], locale)
        self._overrides = overrides if overrides and overrides.is_dir() else None
        self._own = _environment([self._overrides, BUILT_IN], locale) if self._overrides else self._built_in

    def strangers(self) -> list[Path]:
        """Files that replace nothing, for a name may be misspelt. One that begins with `_` is a part of others."""
        if self._overrides is None:
            return []
        known = {file.name for file in BUILT_IN.iterdir()}
        return sorted(file for file in self._overrides.iterdir() if file.name not in known and file.name[0] not in "_.")

    def check(self, kind: str, sample: Mapping[str, object]) -> None:
        """Renders `kind` with `sample`. Raises TemplateProblem, also where a mail reader would cut it off."""
        length = len(_render(self._own, kind, sample).html.encode("utf-8", "replace"))
        if length > LONGEST:
            place = str(self._own.get_template(f"{kind}.html").filename)
            raise TemplateProblem(place, f"makes {length // 1024} KB of HTML; Gmail cuts a mail off at 102 KB")

    def render(self, kind: str, values: Mapping[str, object]) -> Content:
        """The mail of this kind. Where the site's own template fails on real data, the built-in one is used.

        A lead is worth more than a template: the failure is logged, and the mail still goes.
        """
        try:
            return _render(self._own, kind, values)
        except TemplateProblem as problem:
            # Not why: with real data the reason may hold some of it.
            _log.error("template.failed", kind=kind, place=problem.place)
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
            raise TemplateProblem(_place(name, error), error.message or type(error).__name__) from error
        except Exception as error:  # a template is code: it may fail in any way
            raise TemplateProblem(_place(name, error), str(error)) from error
    if not (subject := one_line(made["subject"])):
        raise TemplateProblem(str(environment.get_template(f"{kind}.subject.txt").filename), "renders to nothing")
    return Content(subject, made["text"], _styled(environment, kind, made["html"]))


def _styled(environment: Environment, kind: str, html: str) -> str:
    if "<style" not in html:
        return html
    try:
        return _inliner.inline(html)
    except InlineError as error:
        raise TemplateProblem(str(environment.get_template(f"{kind}.html").filename), str(error)) from error


def _place(name: str, error: Exception) -> str:
    """File and line. Jinja maps a traceback's lines to the template's, so the last frame in one is the place."""
    file, line = getattr(error, "filename", None), getattr(error, "lineno", None)
    trace = None if file else error.__traceback__
    while trace is not None:
        if "__jinja_template__" in trace.tb_frame.f_globals or trace.tb_frame.f_code.co_name in _IN_TEMPLATE:
            file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    return f"{file or name}:{line}" if line else str(file or name)
