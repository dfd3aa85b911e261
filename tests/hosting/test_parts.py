"""Pages that include parts: what is served, where links of a part lead, and what refuses to start."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server import hosting
from server.hosting import Published, SnapshotError
from server.hosting.html import includes, placed, rooted
from tests.conftest import unprivileged
from tests.hosting.conftest import Both, Files, both, publish, write

HEADER = '<!--#include file="header.html" -->'
NAV = '<nav><a href="./">Home</a> <a href="services/">Services</a> <a href="about">About</a></nav>\n'


def included(folder: Path, parts: Files, public: Files, cache: Path | None = None, **options: int) -> Published:
    """What one site, `bikes`, at a domain of its own too, publishes of these files in parts/ and public/."""
    write(folder / "parts", parts)
    source = hosting.read("bikes", write(folder / "public", public), ("bikes.example",), shared=folder / "parts")
    return publish(source, cache=cache, **options)


def text(host: Both, target: str, name: str = "localhost") -> str:
    return host.ask(target, host=name).body.decode()


def refused(folder: Path, parts: Files, public: Files) -> list[str]:
    with pytest.raises(SnapshotError) as caught:
        included(folder, parts, public)
    return caught.value.problems


# -- what is served ------------------------------------------------------------------------------------------------


def test_part_stands_where_it_is_included(tmp_path: Path) -> None:
    page = f"<!doctype html>\r\n<body>é{HEADER}\n<main></main>{HEADER}</body>"
    published = included(tmp_path, {"header.html": "<b>ü</b>\r\n"}, {"index.html": page})
    with both(published) as host:
        assert text(host, "/bikes/") == page.replace(HEADER, "<b>ü</b>\r\n")


def test_links_lead_to_the_same_page_from_everywhere(tmp_path: Path) -> None:
    pages = {"index.html": HEADER, "about.html": HEADER, "services/index.html": HEADER, "a/b/c/index.html": HEADER}
    current = ' aria-current="page"'
    with both(included(tmp_path, {"header.html": NAV}, dict(pages))) as host:
        for name, base in (("localhost", "/bikes"), ("bikes.example", "")):
            assert text(host, f"{base}/", name) == NAV.replace(" href", current + " href", 1)
            assert text(host, f"{base}/about", name) == NAV.replace(' href="about', current + ' href="about')
            up = NAV.replace('"./"', '"../"').replace('"services', '"../services').replace('"about', '"../about')
            here = up.replace('<a href="../services/"', f'<a{current} href="./"')
            assert text(host, f"{base}/services/", name) == here
            assert text(host, f"{base}/a/b/c/", name) == up.replace("../", "../../../")


def test_page_that_is_answered_elsewhere_has_links_that_hold_there(tmp_path: Path) -> None:
    public: Files = {"404.html": HEADER, "x/404.html": HEADER, "index.html": "", "_redirects": "/old/* /x/y/z 200"}
    public["x/y/z.html"] = HEADER
    with both(included(tmp_path, {"header.html": '<a href="services/">'}, public)) as host:
        for name, base in (("localhost", "/bikes"), ("bikes.example", "")):
            for target in ("/nowhere/at/all", "/x/nowhere", "/old/page"):
                assert text(host, base + target, name) == f'<a href="{base}/services/">'


def test_compressed_page_is_the_whole_page(tmp_path: Path) -> None:
    part = "<p>again and again</p>" * 100
    with both(included(tmp_path, {"header.html": part}, {"index.html": HEADER}, cache=tmp_path / "cache")) as host:
        reply = host.ask("/bikes/", accept_encoding="gzip")
        assert (reply["content-encoding"], len(reply.body) < len(part)) == ("gzip", True)
        assert host.ask("/bikes/", accept_encoding="gzip", if_none_match=reply["etag"]).status == 304


@pytest.mark.parametrize("newer", ["header.html", "index.html"])
def test_page_is_as_new_as_the_newest_of_its_files(tmp_path: Path, newer: str) -> None:
    write(tmp_path, {"parts/header.html": "a", "public/index.html": HEADER})
    for number, file in enumerate((tmp_path / "parts" / "header.html", tmp_path / "public" / "index.html")):
        os.utime(file, (1_700_000_000, 1_700_000_000 + 86_400 * (file.name == newer) + number))
    with both(included(tmp_path, {}, {})) as host:
        assert host.ask("/bikes/")["last-modified"].startswith("Wed, 15 Nov 2023")


def test_changed_part_is_another_page(tmp_path: Path) -> None:
    with both(included(tmp_path, {"header.html": "a"}, {"index.html": HEADER})) as host:
        before = host.ask("/bikes/")
        host.served.published = included(tmp_path, {"header.html": "b"}, {})
        after = host.ask("/bikes/", if_none_match=before["etag"])
        assert (after.status, after.body) == (200, b"b")


def test_page_is_put_together_though_there_is_no_room_in_memory(tmp_path: Path) -> None:
    with both(included(tmp_path, {"header.html": "x" * 5000}, {"index.html": HEADER, "a.txt": "a"}, budget=0)) as host:
        assert host.ask("/bikes/").body == b"x" * 5000
        assert host.served.published.held == 5000


def test_parts_are_not_served(tmp_path: Path) -> None:
    with both(included(tmp_path, {"header.html": "a"}, {"index.html": HEADER})) as host:
        for target in ("/bikes/parts/header.html", "/bikes/header.html", "/bikes/../parts/header.html", "/parts/"):
            assert host.ask(target).status in (404, 400) or target == "/parts/"


def test_byte_order_mark_of_a_part_is_none_of_the_page(tmp_path: Path) -> None:
    with both(
        included(tmp_path, {"header.html": b"\xef\xbb\xbfa"}, {"index.html": b"\xef\xbb\xbf" + HEADER.encode()})
    ) as host:
        assert host.ask("/bikes/").body == b"\xef\xbb\xbfa"


def test_bytes_of_the_page_that_are_not_utf_8_stay(tmp_path: Path) -> None:
    with both(included(tmp_path, {"header.html": "é"}, {"index.html": b"\xe9" + HEADER.encode() + b"\xff"})) as host:
        assert host.ask("/bikes/").body == b"\xe9\xc3\xa9\xff"


def test_part_may_lie_in_a_folder(tmp_path: Path) -> None:
    page = '<!--#include file="nav/é.html" -->'
    with both(included(tmp_path, {"nav/e\u0301.html": "a"}, {"index.html": page})) as host:
        assert host.ask("/bikes/").body == b"a"


# -- what is no include --------------------------------------------------------------------------------------------

OTHERS = [
    '<!--#include file="header.html"-->',
    '<!-- #include file="header.html" -->',
    '<!--#include virtual="header.html" -->',
    "<!--#include file='header.html' -->",
    '<!--#INCLUDE file="header.html" -->',
    '<!--#include  file="header.html" -->',
    '<!#include file="header.html" >',
    '<!--#include file="header.html" ',
    f"<script>'{HEADER}'</script>",
    f"<style>{HEADER}</style>",
    f"<textarea>{HEADER}</textarea>",
    f"<title>{HEADER}</title>",
    f"<a title='{HEADER}'>",
    f"<!-- {HEADER[1:]}",
]


@pytest.mark.parametrize("page", OTHERS)
def test_what_is_written_otherwise_is_left_alone(tmp_path: Path, page: str) -> None:
    published = included(tmp_path, {"header.html": "no"}, {"index.html": page})
    with both(published) as host:
        assert text(host, "/bikes/") == page


def test_only_pages_include(tmp_path: Path) -> None:
    with both(included(tmp_path, {}, {"index.html": "", "a.txt": HEADER, "a.svg": HEADER, "a.xhtml": HEADER})) as host:
        for name in ("a.txt", "a.svg", "a.xhtml"):
            assert text(host, f"/bikes/{name}") == HEADER


def test_parts_that_nobody_includes_may_be_anything(tmp_path: Path) -> None:
    write(tmp_path / "parts", {"a.html": b"\xff", "b.html": HEADER})
    os.symlink("/etc/passwd", tmp_path / "parts" / "c.html")
    assert included(tmp_path, {}, {"index.html": "a"}).files == {"bikes": 1}


@given(st.lists(st.sampled_from([*OTHERS, "<!--", "-->", "<script>", "</script>", "<![x"]) | st.text(max_size=4)))
@example([HEADER, '<!--#include file="a-->b" -->'])
@example(["<![x ", HEADER])
def test_included_is_what_stands_there_in_so_many_letters(pieces: list[str]) -> None:
    page = "".join(pieces)
    for one in includes(page):
        assert page[one.start : one.end] == f'<!--#include file="{one.name}" -->'


# -- links of a part -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "at_root", "below"),
    [
        ("services/", "services/", "../services/"),
        ("./", "./", "../"),
        (".", "./", "../"),
        ("a/x.html", "a/x.html", "x.html"),
        ("a/", "a/", "./"),
        ("a/?x=1#y", "a/?x=1#y", "./?x=1#y"),
        ("?x=1", "./?x=1", "../?x=1"),
        ("#main", "#main", "#main"),
        ("", "", ""),
        ("/signup", "/signup", "/signup"),
        ("//cdn.example/x", "//cdn.example/x", "//cdn.example/x"),
        ("https://a.example/b", "https://a.example/b", "https://a.example/b"),
        ("mailto:a@b.example", "mailto:a@b.example", "mailto:a@b.example"),
        ("../x", "x", "../x"),
        ("./1:2", "./1:2", "../1:2"),
        (".//x", "x", "../x"),
        ("a//x", "a/x", "x"),
        ("./x:y", "./x:y", "../x:y"),
        ("é/ü", "é/ü", "../é/ü"),
    ],
)
def test_link_of_a_part(url: str, at_root: str, below: str) -> None:
    link = '<img src="{}">'
    assert placed(link.format(url), "/index.html") == link.format(at_root)
    assert placed(link.format(url), "/a/index.html") == link.format(below)


def test_every_kind_of_link_is_placed() -> None:
    part = '<link href=a.css><img srcset="b.png, c.png 2x"><form action=d><svg><use xlink:href="e.svg#x"/></svg>'
    assert placed(part, "/a/index.html") == (
        '<link href="../a.css"><img srcset="../b.png, ../c.png 2x"><form action="../d">'
        '<svg><use xlink:href="../e.svg#x"/></svg>'
    )


STEPS = st.sampled_from(["a", "b", "..", ".", "c.html", "", "x:y", "é"])


@given(st.lists(STEPS, min_size=1, max_size=6).map("/".join), st.sampled_from(["/", "/a/", "/a/b/", "/d/e/f/"]))
@example("a//b", "/a/")
def test_link_of_a_part_leads_where_it_leads_from_the_root(url: str, folder: str) -> None:
    part = f'<img src="{url}">'
    there = placed(part, folder + "index.html")
    assert rooted(there, folder) == rooted(part, "/")
    assert there == part or not there.startswith('<img src="/')


@pytest.mark.parametrize(
    ("link", "path"),
    [
        ('<a href="./">', "/index.html"),
        ('<a href="index.html">', "/index.html"),
        ('<a href="a/">', "/a/index.html"),
        ('<a href="a/index.html">', "/a/index.html"),
        ('<a href="b">', "/b.html"),
        ('<a href="b.html">', "/b.html"),
        ('<A class=x HREF="caf%c3%a9/">', "/caf%C3%A9/index.html"),
        ('<a href="café/">', "/caf%C3%A9/index.html"),
    ],
)
def test_link_to_the_page_itself_is_marked(link: str, path: str) -> None:
    assert placed(link, path).startswith(link[:2] + ' aria-current="page"')


@pytest.mark.parametrize(
    "link",
    [
        '<a href="a/" aria-current="true">',
        '<a aria-current=page href="a/">',
        '<a href="a/#b">',
        '<a href="a/?b">',
        '<a href="a">',
        '<a href="">',
        '<a href="#a">',
        '<a href="/a/">',
        '<a name="a/">',
        '<link href="a/">',
        '<form action="a/">',
    ],
)
def test_other_link_is_not_marked(link: str) -> None:
    assert placed(link, "/a/index.html").count("aria-current") == link.count("aria-current")


# -- what refuses to start -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["gone.html", "../secret.html", "/etc/passwd", "..\\x", ".hidden.html", "", "nav", "."]
)
def test_part_that_is_not_there(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"secret.html": "x", "parts/.hidden.html": "x", "parts/nav/a.html": "x"})
    page = f'<!--#include file="{name}" -->'
    (problem,) = refused(tmp_path, {}, {"index.html": page})
    assert problem.startswith(f"{tmp_path / 'public' / 'index.html'}: includes {name!r}: there is no such file")


def test_no_parts_at_all(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, {}, {"index.html": HEADER})
    assert "'header.html'" in problem


@pytest.mark.parametrize(("part", "why"), [(b"\xff", "which is not UTF-8"), (HEADER.encode(), "parts do not nest")])
def test_part_that_cannot_be_put_in(tmp_path: Path, part: bytes, why: str) -> None:
    (problem,) = refused(tmp_path, {"header.html": part}, {"index.html": HEADER})
    assert problem.startswith(f"{tmp_path / 'public' / 'index.html'}: includes {tmp_path / 'parts' / 'header.html'}, ")
    assert why in problem


def test_part_that_is_locked() -> None:
    with unprivileged() as root:
        write(root, {"parts/header.html": "a", "public/index.html": HEADER})
        (root / "parts" / "header.html").chmod(0)
        (problem,) = refused(root, {}, {})
        assert f"includes {root / 'parts' / 'header.html'}, which cannot be read: Permission denied" in problem


def test_part_that_leads_out_of_the_site(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    os.symlink("/etc/passwd", tmp_path / "parts" / "header.html")
    (problem,) = refused(tmp_path, {}, {"index.html": HEADER})
    assert problem == f"{tmp_path / 'parts' / 'header.html'}: is a link that leads out of the site"


def test_every_problem_is_named(tmp_path: Path) -> None:
    pages: Files = {"index.html": HEADER, "a.html": HEADER, "_redirects": "nonsense"}
    problems = refused(tmp_path, {}, pages)
    assert len(problems) == 3
    assert all(any(name in problem for problem in problems) for name in pages)
