import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.hosting.html import injected, rooted

BASE = "/bikes/"
# Texts that are nearly pages: pieces that matter, between characters of every kind.
MARKS = "< > </ /> <!-- --> --!> <![CDATA[ <![x ]]> <? <! & &# &amp &copy= , ( 2x data:a,b = .. / \\ é ' \""
TAGS = "<script> </script> <svg> </svg> <title/> <textarea> </textarea> </body> </BODY\t> <plaintext> <br> <style>"
OTHERS = st.sampled_from(
    ["&#" + "9" * 5000 + ";", "\n", "\r\n", "\f", "\x00", "\ud800", " ", " srcset=", "<base href=/>"]
)
LINKS = st.sampled_from(["<a href=x>", "<a href='", "<img srcset='a, b 2x'>"])
PAGES = st.lists(
    st.sampled_from([*MARKS.split(), *TAGS.split()]) | OTHERS | LINKS | st.text(max_size=4), max_size=25
).map("".join)


class Hrefs(HTMLParser):
    """What a page links to, as the standard library reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name == "href" and value is not None]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ('<a href="x.html">', '<a href="/bikes/x.html">'),
        ("<a href='x.html'>", "<a href='/bikes/x.html'>"),
        ("<a href=x.html>", '<a href="/bikes/x.html">'),
        ("<img src=a.png/>", '<img src="/bikes/a.png/">'),
        ("<A HREF=x class=y>", '<A HREF="/bikes/x" class=y>'),
        ('<a\n  href = "x"\n>', '<a\n  href = "/bikes/x"\n>'),
        ('<a class="y"href="x">', '<a class="y"href="/bikes/x">'),
        ('<a title="a > b" href="x">', '<a title="a > b" href="/bikes/x">'),
        ('<img src="a.png" />', '<img src="/bikes/a.png" />'),
        ('<form action="join"><button formaction="b">', '<form action="/bikes/join"><button formaction="/bikes/b">'),
        ('<video poster="p.jpg" src="v.mp4">', '<video poster="/bikes/p.jpg" src="/bikes/v.mp4">'),
        ('<object data="o.svg">', '<object data="/bikes/o.svg">'),
        ('<link rel=preload imagesrcset="a 1x">', '<link rel=preload imagesrcset="/bikes/a 1x">'),
        ('<svg><use xlink:href="i.svg#a"/></svg>', '<svg><use xlink:href="/bikes/i.svg#a"/></svg>'),
        ('<svg><image href="i.png"/></svg>', '<svg><image href="/bikes/i.png"/></svg>'),
        ('<a href="x?a=1#b">', '<a href="/bikes/x?a=1#b">'),
        ('<a href="?a=1">', '<a href="/bikes/?a=1">'),
        ('<a href=" x\n">', '<a href="/bikes/x">'),
        ('é\r\n<p>ü</p>\r\n\t<a href="x">', 'é\r\n<p>ü</p>\r\n\t<a href="/bikes/x">'),
        ('<noscript><img src="a"></noscript>', '<noscript><img src="/bikes/a"></noscript>'),
        ('AT&#T &# <a href="x">', 'AT&#T &# <a href="/bikes/x">'),
        ('<![if !IE]><a href="x"><![endif]>', '<![if !IE]><a href="/bikes/x"><![endif]>'),
    ],
)
def test_relative_url_holds_at_any_depth(page: str, expected: str) -> None:
    assert rooted(page, BASE) == expected


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            " ",
            "#main",
            "/",
            "/x",
            "//cdn.example/x",
            "\\\\cdn.example",
            "https://a.example/",
            "mailto:a@b.example",
        ),
        *("tel:1", "data:image/png;base64,AA,BB", "javascript:void(0)", "JavaScript:x", "java&#x73;cript:x", "blob:x"),
        *("&#35;main", "&#x2f;x", "&sol;x", "&num;main", "https&colon;//a.example", "j&Tab;avascript:x"),
    ],
)
def test_url_that_is_not_relative_stays(url: str) -> None:
    page = f'<a href="{url}"><img srcset="">'
    assert rooted(page, BASE) == page


@pytest.mark.parametrize(
    "page",
    [
        "<!-- <a href=x> -->",
        "<!--><!-- <a href=x> -->",
        '<script>s = "<a href=x>"</script>',
        '<SCRIPT>s = "<a href=x>"</SCRIPT>',
        "<style>/* <a href=x> */ a { background: url(b.png) }</style>",
        "<textarea><a href=x></textarea>",
        "<textarea/><a href=x></textarea>",
        "<title>&lt;<a href=x></title>",
        "<iframe><a href=x></iframe>",
        "<xmp><a href=x></xmp>",
        "<!-- <a href=x>",
        "<script><a href=x>",
        "<textarea><a href=x>",
        "<a href=x",
        '<a href="x>',
        "<!DOCTYPE html>",
        '<div data="x" data-href="x" hrefs="x" title="href=x">',
        "<a href>",
        "</a href=x>",
        "< a href=x>",
        "&lt;a href=x&gt;",
    ],
)
def test_what_is_no_link_stays(page: str) -> None:
    assert rooted(page, BASE) == page


@pytest.mark.parametrize(
    "text",
    ["<textarea><a href=y></textarea>", "<script>'<b>'</script>", "<svg><title/></svg>", "<!-- <!-- -->"],
)
def test_links_after_a_text_are_found(text: str) -> None:
    assert rooted(text + "<a href='x'>", BASE) == text + "<a href='/bikes/x'>"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("..", "/"),
        ("../", "/"),
        ("../x", "/x"),
        ("../../../x", "/x"),
        ("a/../../../../x", "/x"),
        (".", "/bikes/"),
        ("./x", "/bikes/x"),
        ("a/./b/", "/bikes/a/b/"),
        ("..\\x", "/x"),
        (".//evil.example/x", "/bikes/evil.example/x"),
        ("..//evil.example/x", "/evil.example/x"),
        ("../\\evil.example/x", "/evil.example/x"),
        ("a;b;", "/bikes/a;b;"),
        ("..;x", "/bikes/..;x"),
        ("1:2", "/bikes/1:2"),
        ("x?../y", "/bikes/x?../y"),
        ("x?", "/bikes/x?"),
        ("x#", "/bikes/x#"),
        ("%2e%2e/x", "/bikes/%2e%2e/x"),
    ],
)
def test_dots_stop_at_the_root_of_the_host(url: str, path: str) -> None:
    assert rooted(f'<a href="{url}">', BASE) == f'<a href="{path}">'


@pytest.mark.parametrize(("base", "path"), [("/", "/x"), ("/bikes/", "/bikes/x"), ("/bikes/blog/", "/bikes/blog/x")])
def test_base_may_be_any_folder(base: str, path: str) -> None:
    assert rooted('<a href="x">', base) == f'<a href="{path}">'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x?a=1&amp;b=2", "/bikes/x?a=1&amp;b=2"),
        ("x?a=1&b=2", "/bikes/x?a=1&amp;b=2"),
        ("x?a=1&copy=2", "/bikes/x?a=1&amp;copy=2"),
        ("x?a=1&copyright", "/bikes/x?a=1&amp;copyright"),
        ("x?a=1&copy;", "/bikes/x?a=1©"),
        ("x&copy", "/bikes/x©"),
        ("x?a=1&amp;copy;=2", "/bikes/x?a=1&amp;copy;=2"),
        ("x&amp", "/bikes/x&amp;"),
        ("a&#47;b", "/bikes/a/b"),
        ("a&quot;b&#39;c", "/bikes/a&quot;b&#x27;c"),
        ("&period;&period;/x", "/x"),
        ("x?<b>", "/bikes/x?&lt;b&gt;"),
    ],
)
def test_character_references_keep_their_meaning(value: str, expected: str) -> None:
    assert rooted(f'<a href="{value}">', BASE) == f'<a href="{expected}">'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.png", "/b/a.png"),
        ("a.png 1x, b.png 2x", "/b/a.png 1x, /b/b.png 2x"),
        ("a.png 100w,b.png 200w", "/b/a.png 100w,/b/b.png 200w"),
        ("a.png, b.png 2x", "/b/a.png, /b/b.png 2x"),
        ("a,b.png 1x", "/b/a,b.png 1x"),
        ("data:image/png;base64,AA,BB= 1x, b.png 2x", "data:image/png;base64,AA,BB= 1x, /b/b.png 2x"),
        ("/a.png 1x, https://c.example/d,e 2x", "/a.png 1x, https://c.example/d,e 2x"),
        ("\n  a.png 1x,\n  b.png 1.5x\n", "\n  /b/a.png 1x,\n  /b/b.png 1.5x\n"),
        ("a.png calc(1,2), b.png", "/b/a.png calc(1,2), /b/b.png"),
        (",,a.png,,", ",,/b/a.png,,"),
        (",", ","),
    ],
)
def test_each_candidate_of_a_srcset_is_rooted(value: str, expected: str) -> None:
    assert rooted(f'<img srcset="{value}">', "/b/") == f'<img srcset="{expected}">'


def test_page_with_a_base_of_its_own_is_left_alone() -> None:
    page = '<BASE target=_top HREF="/elsewhere/"><a href="x">'
    assert rooted(page, BASE) == page


@pytest.mark.parametrize(
    "text", ["<!-- <base href=/> -->", "<base target=_blank>", "<textarea><base href=/></textarea>"]
)
def test_other_mention_of_base_is_none(text: str) -> None:
    assert rooted(text + '<a href="x">', BASE) == text + '<a href="/bikes/x">'


def test_rooting_twice_is_rooting_once() -> None:
    once = rooted("<a href=a?b&c><img srcset='a, b 2x'><a href=../d>", BASE)
    assert rooted(once, BASE) == once


@given(PAGES, st.sampled_from(["/", "/b/", "/b/c/"]))
@example("<![x <a href=y>", "/")
@example("<a href='&#" + "9" * 5000 + ";'>", "/")
@example("&#" + "9" * 5000 + ";<a href=y>", "/")
def test_no_text_raises(page: str, base: str) -> None:
    rooted(page, base)
    assert len(injected(page, "<i>")) == len(page) + 3


@given(PAGES)
def test_page_without_links_stays_byte_for_byte(page: str) -> None:
    page = re.sub("href|src", "x", page)
    assert rooted(page, BASE) == page


URL_CHARACTERS = st.text(st.sampled_from("a./\\?#&;:%é '\"<,") | st.characters(codec="utf-8"), max_size=12)


@given(URL_CHARACTERS, st.sampled_from(["/", "/b/", "/b/c/"]))
@example("./\\evil.example", "/")
@example(".//evil.example", "/")
def test_relative_url_never_leaves_the_host(url: str, base: str) -> None:
    written = url.replace("&", "&amp;").replace('"', "&quot;")
    reader = Hrefs()
    reader.feed(rooted(f'<a href="{written}">', base))
    (found,) = reader.found
    if found != url and found != unescape(f"{written}"):
        assert found.startswith("/")
        assert not found.startswith(("//", "/\\"))


@given(st.lists(st.sampled_from(["a", "..", ".", "b.html", "c d", "é"]), min_size=1, max_size=8).map("/".join))
def test_plain_path_is_where_a_browser_at_the_base_goes(path: str) -> None:
    reader = Hrefs()
    reader.feed(rooted(f'<a href="{path}">', "/x/y/"))
    (found,) = reader.found
    assert urlsplit(urljoin("http://h", found)) == urlsplit(urljoin("http://h/x/y/", path))


def test_many_tags_take_no_time() -> None:
    page = "<p class=a>\n<a href=x>&</a>" * 20_000
    assert rooted(page, "/") == page.replace("href=x", 'href="/x"')


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<body><p></body></html>", "<body><p>+</body></html>"),
        ("<body>\r\né</BODY >", "<body>\r\né+</BODY >"),
        ("<body>a</body>b</body>", "<body>a</body>b+</body>"),
        ("<p>no body", "<p>no body+"),
        ("", "+"),
        ("<body></body><!-- </body> -->", "<body>+</body><!-- </body> -->"),
        ("<body></body><!-- </body>", "<body>+</body><!-- </body>"),
        ('</body><script>"</body>"</script>', '+</body><script>"</body>"</script>'),
        ("</body><textarea></body></textarea>", "+</body><textarea></body></textarea>"),
        ('</body><a title="</body>">', '+</body><a title="</body>">'),
        ("<script></body>", "<script></body>+"),
    ],
)
def test_element_is_put_in_before_the_last_end_of_body(page: str, expected: str) -> None:
    assert injected(page, "+") == expected
