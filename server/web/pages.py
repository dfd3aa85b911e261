"""The server's own pages: rendered from web/templates with a policy that allows no inline script.

Sites are styled by their own files; these pages take only a site's accent colour.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from server.site import Site

STATIC = Path(__file__).parent / "static"

_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)

_POLICY = (
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; object-src 'none'; "
    "form-action 'self'; frame-ancestors 'self'"
)


def page(
    template: str,
    values: Mapping[str, object],
    *,
    site: Site | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    policy: str = "",
) -> HTMLResponse:
    """A page from `template`, in the colours of `site` where it is about one. `policy` adds CSP directives."""
    nonce = secrets.token_urlsafe(16)
    html = _environment.get_template(template).render({**values, "site": site, "nonce": nonce})
    csp = f"{_POLICY}; style-src 'self' 'nonce-{nonce}'{'; ' + policy if policy else ''}"
    ours = {"content-security-policy": csp, "cache-control": "no-store"}
    # replace: a mail that is shown may hold half a surrogate pair, which has no UTF-8
    return HTMLResponse(html.encode("utf-8", "replace"), status, {**ours, **(headers or {})})
