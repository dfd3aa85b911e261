"""The server's own pages: rendered from web/templates with a policy that allows no inline script.

Sites are styled by their own files; these pages take only a site's accent colour.
"""

import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from server.i18n import SOURCE, catalogue, negotiate, translated
from server.mail.contrast import contrast, ink
from server.site import Site

STATIC = Path(__file__).parent / "static"

# The background by day (see pages.css), and the contrast that text needs (WCAG 2.2, 1.4.3).
_PAPER, _READABLE = "#fbfbf8", 4.5


@cache
def _environment(language: str) -> Environment:
    texts = catalogue(language)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        extensions=["jinja2.ext.i18n"],
        # What a problem says comes as it was raised; it is escaped after this.
        finalize=lambda value: translated(value, texts),
    )
    environment.filters["ink"] = ink
    environment.tests["readable"] = lambda color: contrast(color, _PAPER) >= _READABLE
    environment.install_gettext_translations(texts, newstyle=True)  # type: ignore[attr-defined]
    return environment


_POLICY = (
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; object-src 'none'; "
    "frame-ancestors 'self'; form-action 'self'"
)


def language(request: Request, site: Site | None = None) -> str:
    """The language to answer in: the client's, else that of `site`, as far as there are texts in it."""
    return negotiate(request.headers.get("accept-language", ""), site.locale if site else SOURCE)


def page(
    request: Request,
    template: str,
    values: Mapping[str, object],
    *,
    site: Site | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    policy: str = "",
) -> HTMLResponse:
    """A page from `template` in the client's language, in the colours of `site` where it is about one.

    `policy` adds CSP directives. A Text among the values is said in the page's language too.
    """
    nonce, tag = secrets.token_urlsafe(16), language(request, site)
    html = _environment(tag).get_template(template).render({**values, "site": site, "nonce": nonce, "language": tag})
    csp = f"{_POLICY}{_targets(site)}; style-src 'self' 'nonce-{nonce}'{'; ' + policy if policy else ''}"
    ours = {"content-security-policy": csp, "cache-control": "no-store"}
    ours |= {"content-language": tag, "vary": "Accept-Language"}
    # replace: a mail that is shown may hold half a surrogate pair, which has no UTF-8
    return HTMLResponse(html.encode("utf-8", "replace"), status, {**ours, **(headers or {})})


def _targets(site: Site | None) -> str:
    # Where a form of the page may end: Chromium holds a redirect after it to this too.
    return "".join(f" {target}" for target in sorted(_origins(site))) if site else ""


def _origins(site: Site) -> set[str]:
    urls = [urlsplit(target) for target in site.signup.next]
    return {f"{url.scheme}://{url.netloc}" for url in urls if url.netloc}
