"""What a document refers to: the links and assets of a page, style sheet, manifest or sitemap. Knows no server."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

_ADDRESSES = frozenset({"href", "src", "action", "formaction", "poster", "data", "xlink:href"})
# Pages whose content is an address, as the social networks read them.
_METAS = frozenset({"og:image", "og:url", "twitter:image"})
_CSS = re.compile(r"""url\(\s*["']?([^"')]+)["']?\s*\)""")


class Document(HTMLParser):
    """A page: what it refers to, the places in it that can be linked to, and its JSON-LD."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.posts: list[str] = []
        self.places: set[str] = {"top", ""}
        self.data: list[Any] = []
        self._script = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places |= {values[name] for name in ("id", "name") if name in values}
        if tag == "form" and values.get("method", "").lower() == "post":
            self.posts.append(values.pop("action", ""))
        if tag == "meta" and values.get("property", values.get("name")) in _METAS:
            self.references.append(values["content"])
        self.references += [value for name, value in values.items() if name in _ADDRESSES]
        for name in ("srcset", "imagesrcset"):
            self.references += [one.split()[0] for one in values.get(name, "").split(",") if one.strip()]
        self.references += styled(values.get("style", ""))
        self._script = values.get("type", "") if tag == "script" else ""

    def handle_endtag(self, tag: str) -> None:
        self._script = ""

    def handle_data(self, data: str) -> None:
        if self._script == "application/ld+json":
            self.data.append(json.loads(data))
            self.references += _addresses(self.data[-1])


def styled(sheet: str) -> list[str]:
    """What a style sheet refers to."""
    return _CSS.findall(sheet)


def listed(manifest: dict[str, Any]) -> list[str]:
    """What a web app manifest refers to."""
    icons = [icon["src"] for key in ("icons", "screenshots") for icon in manifest.get(key, [])]
    return [*icons, *(manifest[key] for key in ("start_url", "scope", "id") if key in manifest)]


def _addresses(data: Any) -> Iterator[str]:
    """Every text in JSON-LD that is an address, but for the names of its vocabulary."""
    if isinstance(data, dict):
        for key, value in data.items():
            if not key.startswith("@"):
                yield from _addresses(value)
    elif isinstance(data, list):
        for value in data:
            yield from _addresses(value)
    elif isinstance(data, str) and data.startswith(("http:", "https:")) and "schema.org" not in data:
        yield data
