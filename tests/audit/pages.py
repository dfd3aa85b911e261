"""The pages of the repository's sites: where each is asked for, and what may be expected of it.

Knows the sites' folders; knows no browser and no checker.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from server.hosting.paths import address
from tests.conftest import REPOSITORY

SITES = REPOSITORY / "sites"
SLUGS = sorted(file.parent.name for file in SITES.glob("*/site.toml"))
# An address where nothing is: deep, for the links of the page that says so must hold there too.
_NOWHERE = "nothing/is/here"
_NOINDEX = re.compile(r'<meta name="?robots"? content="[^"]*noindex')
_LOCATION = re.compile(r"<loc>(https://([^/<]+)/[^<]*)</loc>")


@dataclass(frozen=True, slots=True)
class Page:
    """One page. `path` counts from the site's root; `indexable` are those that search engines may show."""

    slug: str
    path: str
    name: str
    indexable: bool
    status: int = 200

    def __str__(self) -> str:
        return f"{self.slug}/{self.name}"


def pages() -> list[Page]:
    """All of them, by site."""
    return [page for slug in SLUGS for page in _of(slug)]


def folder(slug: str) -> Path:
    """What is published of a site."""
    return SITES / slug / "public"


def locations(slug: str) -> list[str]:
    """The addresses that the site's sitemap lists."""
    sitemap = folder(slug) / "sitemap.xml"
    return [url for url, _ in _LOCATION.findall(sitemap.read_text(encoding="utf-8"))] if sitemap.exists() else []


def domain(slug: str) -> str:
    """The domain that the site's absolute links name."""
    return next((url.split("/")[2] for url in locations(slug)), f"{slug.replace('_', '-')}.example")


def _of(slug: str) -> list[Page]:
    found = []
    for file in sorted(folder(slug).rglob("*.html")):
        name = address("/" + file.relative_to(folder(slug)).as_posix())[1:]
        if name == "404":
            found.append(Page(slug, _NOWHERE, name, indexable=False, status=404))
        else:
            hidden = _NOINDEX.search(file.read_text(encoding="utf-8"))
            found.append(Page(slug, name, name, indexable=hidden is None))
    return found
