"""Every link and asset leads somewhere: below the site's path and on its own domain, from pages and what they name."""

from functools import cache
from urllib.parse import urldefrag, urljoin, urlsplit

import httpx
import pytest

from tests.audit.conftest import Host, none
from tests.audit.links import Document, listed, styled
from tests.audit.pages import SLUGS, Page, domain, folder, locations, pages

pytestmark = pytest.mark.e2e

MOUNTS = ["path", "domain"]


class Site:
    """A site at one of its two places, as a crawler sees it."""

    def __init__(self, host: Host, slug: str, mount: str) -> None:
        self._host = host
        self._slug = slug
        self.base = f"http://host/{slug}/" if mount == "path" else f"https://{domain(slug)}/"
        self.get = cache(self._get)
        self.document = cache(self._document)

    def trouble(self, url: str, source: str = "") -> str:
        """What is wrong with an address that the page at `source` names; "" if nothing is."""
        address, fragment = urldefrag(url)
        if urlsplit(address).scheme not in ("http", "https"):
            return ""
        if urlsplit(address).hostname not in ("host", domain(self._slug)):
            return ""  # another's: not ours to ask
        reply = self.get(address)
        if reply.status_code != 200 and address != source:
            return str(reply.status_code)
        known = not fragment or fragment in self.document(address).places
        return "" if known else f"there is no #{fragment}"

    def _get(self, address: str) -> httpx.Response:
        parts = urlsplit(address)
        slug = self._slug if parts.hostname == domain(self._slug) else None
        return self._host.ask(parts.path + (f"?{parts.query}" if parts.query else ""), slug)

    def _document(self, address: str) -> Document:
        reply = self.get(address)
        return Document(reply.text if "html" in reply.headers["content-type"] else "")

    def troubles(self, source: str, references: list[str]) -> list[str]:
        """The same for all that a document names."""
        found = {reference: self.trouble(urljoin(source, reference), source) for reference in references}
        return [f"{source}: {reference}: {trouble}" for reference, trouble in found.items() if trouble]


@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("slug", SLUGS)
def test_every_link_leads_somewhere(host: Host, slug: str, mount: str) -> None:
    site = Site(host, slug, mount)
    wrong: list[str] = []
    for page in pages():
        if page.slug != slug:
            continue
        url = site.base + page.path
        reply = site.get(url)
        assert reply.status_code == page.status, url
        document = site.document(url)
        wrong += site.troubles(url, document.references)
        for action in document.posts:
            if site.get(urljoin(url, action)).status_code != 405:  # it is there, and is not to be read
                wrong.append(f"{url}: a form posts to {action}")
        for reference in document.references:
            other = urljoin(url, reference)
            if other.endswith(".css"):
                wrong += site.troubles(other, styled(site.get(other).text))
            if other.endswith(".webmanifest") and not site.trouble(other):
                wrong += site.troubles(other, listed(site.get(other).json()))
    none(wrong)


@pytest.mark.parametrize("slug", SLUGS)
def test_sitemap_lists_what_may_be_found(host: Host, slug: str) -> None:
    site = Site(host, slug, "domain")
    assert sorted(locations(slug)) == sorted(site.base + page.path for page in pages() if _listed(page, slug))
    robots = (folder(slug) / "robots.txt").read_text("utf-8")
    assert f"Sitemap: {site.base}sitemap.xml" in robots
    none(url for url in locations(slug) if site.trouble(url))


@pytest.mark.parametrize("slug", SLUGS)
def test_each_page_says_where_it_belongs(host: Host, slug: str) -> None:
    """Its canonical address is its own, on the site's domain: below a path, the page is a copy."""
    site = Site(host, slug, "path")
    wrong = []
    for page in pages():
        if _listed(page, slug):
            text = site.get(site.base + page.path).text
            if f'rel="canonical" href="https://{domain(slug)}/{page.path}"' not in text:
                wrong.append(str(page))
    none(wrong)


def _listed(page: Page, slug: str) -> bool:
    return page.slug == slug and page.indexable
