"""What is served: pages, pictures and sites, made of a seed, the same on every machine; kept in the work folder."""

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import zstandard

# Goes into the markers, so that a work folder of another version of this file is made anew.
_VERSION = "2"
_PAGE = 12 * 1024
_SMALL = 1024
_WORDS = 4000
_STARTS = "b br c d f g gr h k l m n p r s st t tr v w"
_ENDS = "a e i o u an en er in on"
_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<meta name="description" content="{description}">
<link rel="stylesheet" href="style.css">
<link rel="icon" href="icon.svg" type="image/svg+xml">
</head>
<body>
<header class="site-header"><nav aria-label="Main"><ul class="menu">
{menu}
</ul></nav></header>
<main id="content">
<h1>{title}</h1>
"""
# Each signup there sends one mail: nobody is told of it.
_FORM = """\
title = "Bench"

[mail]
from = "Bench <hello@bench.example>"
notify = []

[signup.fields.kind]
type = "select"
required = true
choices = ["Dog", "Cat", "Rabbit"]

[signup.fields.message]
type = "textarea"
max = 2000
"""
_TAIL = """</p>
</section>
</main>
<footer class="site-footer"><p>Open Monday to Saturday. <a href="contact.html">Write to us</a>.</p></footer>
</body>
</html>
"""


@cache
def _vocabulary() -> list[str]:
    words, starts, ends = random.Random(0), _STARTS.split(), _ENDS.split()
    return [
        "".join(words.choice(starts) + words.choice(ends) for _ in range(1 + number % 3)) for number in range(_WORDS)
    ]


class Text:
    """An endless text of invented words, of which some are common and most are rare, as in a language."""

    def __init__(self, seed: int) -> None:
        self._words = _vocabulary()
        self._random = random.Random(seed)

    def words(self, count: int) -> list[str]:
        """The next words; the first of the list are by far the most frequent."""
        return [self._words[int(_WORDS ** self._random.random()) - 1] for _ in range(count)]

    def sentence(self) -> str:
        """5 to 20 words with a capital and a full stop."""
        return " ".join(self.words(self._random.randint(5, 20))).capitalize() + ". "


def page(seed: int) -> bytes:
    """A page of exactly 12 KB."""
    text = Text(seed)
    menu = "\n".join(
        f'<li><a href="{word}.html" class="menu-link">{word.capitalize()}</a></li>' for word in text.words(7)
    )
    title, description = " ".join(text.words(4)).capitalize(), text.sentence().strip()
    html = _HEAD.format(title=title, description=description, menu=menu)
    while len(html) < _PAGE:
        html += f'<section class="block">\n<h2>{" ".join(text.words(3)).capitalize()}</h2>\n'
        for _ in range(3):
            html += "<p>" + "".join(text.sentence() for _ in range(5)).strip() + "</p>\n"
        html += "</section>\n"
    # Cut in the middle of a word: browsers do not mind, and the size is the one that is claimed.
    return (html[: _PAGE - len(_TAIL)].rpartition("<")[0].ljust(_PAGE - len(_TAIL)) + _TAIL).encode()


def small(seed: int) -> bytes:
    """A text of exactly 1 KB."""
    text = Text(seed)
    return "".join(text.sentence() for _ in range(40)).encode()[: _SMALL - 1] + b"\n"


def noise(seed: int, size: int) -> bytes:
    """Bytes that nothing makes smaller, as in a JPEG or a film."""
    return random.Random(seed).randbytes(size)


def main_files() -> dict[str, bytes]:
    """The site that most scenarios ask."""
    front = page(1)
    return {
        "index.html": front,
        "page.html": front,
        "photo.jpg": noise(2, 80 * 1024),
        "film.mp4": noise(3, 5 * 1024 * 1024),
    }


def many_name(number: int) -> str:
    """Where the numbered file of a large site lies; bench/wrk.lua knows it too."""
    return f"d{number // 1000:03d}/f{number:06d}.txt"


def site(folder: Path, files: Callable[[], Iterator[tuple[str, bytes]]], settings: str = 'title = "Bench"\n') -> Path:
    """A folder of sites with the one site `bench`; returns what it publishes."""
    public = folder / "bench" / "public"
    if _begun(folder):
        for name, content in files():
            file = public / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        (folder / "bench" / "site.toml").write_text(settings)
        _finished(folder)
    return public


def main_site(work: Path) -> Path:
    """Pages and pictures for most scenarios."""
    return site(work / "sites" / "main", lambda: iter(main_files().items()))


def empty_site(work: Path) -> Path:
    """Only a front page."""
    return site(work / "sites" / "empty", lambda: iter([("index.html", page(1))]))


def signup_site(work: Path) -> Path:
    """A page, and a form with two fields of its own."""
    return site(work / "sites" / "signup", lambda: iter([("index.html", page(1)), ("page.html", page(1))]), _FORM)


def many_site(work: Path, count: int) -> Path:
    """Files of 1 KB, and the front page that a site has to have."""

    def files() -> Iterator[tuple[str, bytes]]:
        yield "index.html", page(0)
        for number in range(count):
            yield many_name(number), small(number)

    return site(work / "sites" / f"many-{count}", files)


def pages_site(work: Path, count: int) -> Path:
    """Pages of 12 KB."""

    def files() -> Iterator[tuple[str, bytes]]:
        yield "index.html", page(0)
        for number in range(1, count):
            yield f"d{number // 100:03d}/page-{number}.html", page(number)

    return site(work / "sites" / f"pages-{count}", files)


def document_root(work: Path) -> Path:
    """The main site for those that serve a folder, with its compressed variants beside the files.

    gzip and brotli by WhiteNoise's own command (levels 9 and 11), zstd at 19, under both names that are in use.
    """
    folder = work / "docroot"
    if _begun(folder):
        (folder / "bench").mkdir(parents=True)
        for name, content in main_files().items():
            (folder / "bench" / name).write_bytes(content)
        command = [sys.executable, "-m", "whitenoise.compress", "--quiet", str(folder), "jpg", "mp4"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for file in list(folder.rglob("*.html")):
            packed = zstandard.ZstdCompressor(level=19).compress(file.read_bytes())
            for ending in (".zst", ".zstd"):
                file.with_name(file.name + ending).write_bytes(packed)
        _finished(folder)
    return folder


def _begun(folder: Path) -> bool:
    """Whether `folder` has to be made; what is half made, or by another version, is gone then."""
    marker = folder.with_name(folder.name + ".made")
    if marker.is_file() and marker.read_text() == _VERSION:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return True


def _finished(folder: Path) -> None:
    folder.with_name(folder.name + ".made").write_text(_VERSION)
