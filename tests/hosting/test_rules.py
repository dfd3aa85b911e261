import time
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.hosting.paths import Pattern, canonical, pattern
from server.hosting.rules import RESERVED_HEADERS, STATUSES, Redirect, RulesError, apply, headers, redirects

REDIRECTS = Path("sites/bikes/public/_redirects")
HEADERS = Path("sites/bikes/public/_headers")


def redirect(line: str) -> Redirect:
    (rule,) = redirects(line, REDIRECTS)
    return rule


def refused(line: str) -> str:
    """Why the one line of a `_redirects` is refused."""
    with pytest.raises(RulesError) as caught:
        redirects(line, REDIRECTS)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{REDIRECTS}:1: ")
    return problem


def went(line: str, path: str) -> str | None:
    """Where a line sends a path."""
    rule = redirect(line)
    captured = rule.source.match(path)
    return None if captured is None else rule.resolve(captured)


def problems(text: str) -> list[str]:
    """What is wrong with a `_headers`, without the file's name."""
    with pytest.raises(RulesError) as caught:
        headers(text, HEADERS)
    assert all(problem.startswith(f"{HEADERS}:") for problem in caught.value.problems)
    return [problem.removeprefix(f"{HEADERS}:") for problem in caught.value.problems]


def sent(text: str, path: str, **defaults: str) -> dict[str, str]:
    return apply(headers(text, HEADERS), path, {name.replace("_", "-"): value for name, value in defaults.items()})


# Patterns


@pytest.mark.parametrize(
    ("text", "path", "captured"),
    [
        ("/a", "/a", {}),
        ("/a", "/a/", None),
        ("/a", "/A", None),
        ("/a/", "/a", None),
        ("/", "/", {}),
        ("/*", "/", {"splat": ""}),
        ("/*", "/a/b/", {"splat": "a/b/"}),
        ("/a/*", "/a", {"splat": ""}),
        ("/a/*", "/a/", {"splat": ""}),
        ("/a/*", "/a/b/c", {"splat": "b/c"}),
        ("/a/*", "/ab", None),
        ("/a/*", "/", None),
        ("/a/*", "/a//evil", {"splat": "/evil"}),
        ("/:x", "/a", {"x": "a"}),
        ("/:x", "/", None),
        ("/:x", "/a/", None),
        ("/:x", "/a/b", None),
        ("/:x/", "/a/", {"x": "a"}),
        ("/:a/:b_2", "/x/y%20z", {"a": "x", "b_2": "y%20z"}),
        ("/:a/c/*", "/x/c", {"a": "x", "splat": ""}),
        ("/:a/c/*", "/x/d/e", None),
        ("/:a/*", "/", None),
        ("/:a/*", "/x", {"a": "x", "splat": ""}),
        ("/a", "a", None),
        ("/*", "", None),
        ("/%3Aa", "/:a", {}),
        ("/%3Aa", "/x", None),
        ("/%2a", "/*", {}),
        ("/%2a", "/x", None),
        ("/Talk%3aBikes", "/Talk:Bikes", {}),
        ("/12:30", "/12:30", {}),
        ("/café", "/caf%C3%A9", {}),
        ("/cafe\u0301/*", "/caf%C3%A9/x", {"splat": "x"}),
    ],
)
def test_pattern_matches(text: str, path: str, captured: dict[str, str] | None) -> None:
    assert pattern(text).match(path) == captured


@pytest.mark.parametrize(
    ("text", "path", "captured"),
    [
        ("/*.jpg", "/a.jpg", {"splat": "a"}),
        ("/*.jpg", "/a/b.jpg", {"splat": "a/b"}),
        ("/*.jpg", "/a.jpg/b", None),
        ("/*.jpg", "/a.JPG", None),
        ("/a*", "/abc/d", {"splat": "bc/d"}),
        ("/a*a", "/a", None),
        ("/a*a", "/aa", {"splat": ""}),
        ("/*/x", "/a/b/x", {"splat": "a/b"}),
        ("/*/x", "/x", None),
        ("/*/:y", "/a/b", {"splat": "a", "y": "b"}),
        ("/:l/f*n/:y", "/de/f1/2n/z", {"l": "de", "splat": "1/2", "y": "z"}),
        ("/:l/f*n/:y", "/de/f1/2n/", None),
        ("/:l/f*n/:y", "/de", None),
    ],
)
def test_splat_anywhere_matches(text: str, path: str, captured: dict[str, str] | None) -> None:
    assert pattern(text, anywhere=True).match(path) == captured


def test_only_a_pattern_without_names_is_literal() -> None:
    assert [pattern(text).literal for text in ("/a", "/caf\u00e9", "/:a", "/a/*", "/%2A")] == [
        "/a",
        "/caf%C3%A9",
        None,
        None,
        "/*",
    ]


@pytest.mark.parametrize("text", ["/a*a", "/*/a/a/:x", "/:a/*a/:b/:c", "/*"])
@pytest.mark.parametrize(
    "path", ["/" + "a" * 8000, "/a" * 4000, "/" * 8000, "/a/a/aa" * 1000 + "b", "/" + "%41" * 2700]
)
def test_long_path_takes_no_time(text: str, path: str) -> None:
    found, start = pattern(text, anywhere=True), time.perf_counter()
    for _ in range(20):
        found.match(path)
    assert time.perf_counter() - start < 1


SEGMENTS = st.sampled_from(["a", "b", "ab", "", "x.y", "%20"])
PATHS = st.lists(SEGMENTS, max_size=6).map(lambda segments: "/" + "/".join(segments))


def oracle(text: str, path: str) -> bool:
    """Slow and obvious: tries every length of the splat."""
    if "*" not in text:
        wanted, there = text.split("/"), path.split("/")
        return len(wanted) == len(there) and all(
            a == b or (a.startswith(":") and b != "") for a, b in zip(wanted, there, strict=True)
        )
    start, end = text.split("*")
    if end == "" and start.endswith("/") and start != "/" and oracle(start[:-1], path):
        return True
    return any(
        oracle(f"{start}\0{end}", path[:i] + "\0" + path[j:])
        for i in range(len(path) + 1)
        for j in range(i, len(path) + 1)
    )


@given(
    st.lists(st.sampled_from(["a", "b", ":x", ":y", "x.y"]), max_size=4, unique=True),
    st.sampled_from(["", "/*", "/*.y", "/a*", "/a*b", "/*/a", "/*/:z", "/x*y/b"]),
    PATHS,
)
def test_match_is_what_trying_every_length_finds(segments: list[str], end: str, path: str) -> None:
    text = "".join("/" + segment for segment in segments) + end or "/"
    assert (pattern(text, anywhere=True).match(path) is not None) == oracle(text, path)


# _redirects


def test_rules_keep_their_order() -> None:
    rules = redirects("/b /x\n/a /y 302\n/* /z.html 200", REDIRECTS)
    assert [(rule.source.text, rule.target, rule.status) for rule in rules] == [
        ("/b", "/x", 301),
        ("/a", "/y", 302),
        ("/*", "/z.html", 200),
    ]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("force", [False, True])
def test_status_may_force(status: int, force: bool) -> None:
    rule = redirect(f"/a /b {status}{'!' * force}")
    assert (rule.status, rule.force, rule.local) == (status, force, True)


@pytest.mark.parametrize(
    "text",
    [
        "/a /b",
        "\ufeff/a /b",
        "/a\t\t/b\t301\t",
        "  /a   /b  ",
        "/a /b\r\n",
        "\r\n\r\n# nothing\r\n/a /b",
        "/a /b # because",
        "/a /b 301 #because /c 302",
        "   # /x /y\n/a /b",
        "#/x /y\n/a /b",
        "/a /b\r# old Macs",
    ],
)
def test_spaces_comments_and_line_ends_do_not_count(text: str) -> None:
    assert redirect(text) == redirect("/a /b 301")


def test_empty_file_has_no_rules() -> None:
    assert redirects("", REDIRECTS) == redirects("\n# x\n\n", REDIRECTS) == ()


@pytest.mark.parametrize(
    ("line", "path", "target"),
    [
        ("/a /b", "/a", "/b"),
        ("/a /b#c", "/a", "/b#c"),
        ("/a /b?x=1&y=2#c", "/a", "/b?x=1&y=2#c"),
        ("/a /ü?ü=[1]#ü", "/a", "/%C3%BC?%C3%BC=%5B1%5D#%C3%BC"),
        ("/a /caf%c3%a9", "/a", "/caf%C3%A9"),
        ("/a /b?u=https%3A%2F%2Fx.example", "/a", "/b?u=https%3A%2F%2Fx.example"),
        ("/a /b?v=1%0d%0aInjected:%20yes", "/a", "/b?v=1%0d%0aInjected:%20yes"),
        ("/a https://b.example", "/a", "https://b.example"),
        ("/a HTTP://b.example:8080/c#d", "/a", "HTTP://b.example:8080/c#d"),
        (
            "/a https://web.example/2020/http://b.example/%2F/../[c]",
            "/a",
            "https://web.example/2020/http://b.example/%2F/../[c]",
        ),
        ("/a/* /b/:splat", "/a/c/d", "/b/c/d"),
        ("/a/* /b/:splat", "/a", "/b/"),
        ("/a/* /b", "/a/c", "/b"),
        ("/a/* https://b.example/:splat", "/a/c", "https://b.example/c"),
        ("/:y/:m/:d /blog-:y-:m.html", "/2026/11/22", "/blog-2026-11.html"),
        ("/:a/:aa /:aa/:a", "/x/y", "/y/x"),
        ("/n/:x /f?q=:x&p=1#:x", "/n/a&b=c+d", "/f?q=a%26b%3Dc%2Bd&p=1#a&b=c+d"),
        ("/n/:x /f/:x", "/n/caf%C3%A9:y", "/f/caf%C3%A9:y"),
        ("/t/:x /Talk%3Ax/:x", "/t/1", "/Talk%3Ax/1"),
        ("/t/:x /:x", "/t/:x", "/:x"),
        ("/a /12:30", "/a", "/12:30"),
    ],
)
def test_target_takes_the_pieces(line: str, path: str, target: str) -> None:
    assert went(line, path) == target


@pytest.mark.parametrize(
    ("line", "path", "target"),
    [
        ("/old/* /:splat", "/old//evil.example", "/evil.example"),
        ("/old/* /:splat", "/old///evil.example//x", "/evil.example/x"),
        ("/old/* /:splat", "/old/%5cevil.example", "/%5cevil.example"),
        ("/old/* /:splat", "/old/\\evil.example", "/%5Cevil.example"),
        ("/old/* /:splat", "/old/%2f%2fevil.example", "/%2f%2fevil.example"),
        ("/old/* /:splat", "/old/..//evil.example", "/evil.example"),
        ("/old/* /:splat", "/old/%2e%2e/x", "/x"),
        ("/old/* /:splat", "/old/", "/"),
        ("/old/* /:splat", "/old/a\r\nSet-Cookie: x", "/a%0D%0ASet-Cookie:%20x"),
        ("/old/* /:splat", "/old/a?b#c", "/a%3Fb%23c"),
        ("/old/* /:splat", "/old/%", "/%25"),
        ("/old/* /:splat/b", "/old/", "/b"),
        ("/old/* /:splat//b", "/old/", None),
        ("/old/* /a/:splat", "/old/../../x", "/a/x"),
        ("/:x /.:x/b", "/.", "/b"),
        ("/old/* /b?u=:splat", "/old//evil.example", "/b?u=/evil.example"),
    ],
)
def test_local_target_stays_local(line: str, path: str, target: str | None) -> None:
    if target is None:
        assert "can never be a path" in refused(line)
    else:
        assert went(line, path) == target


HOSTILE = st.lists(
    st.sampled_from(
        ["/", "//", "\\", "%5c", "%2f", "..", "%2e", "@", ":", "evil.example", "\r\n", "?", "#", "\t", "%", "\ud800"]
    )
    | st.text(max_size=3),
    max_size=8,
).map("".join)


@pytest.mark.parametrize(
    "line",
    [
        "/o/* /:splat",
        "/o/:x/* /:x:splat",
        "/o/:x/* /:x/:splat",
        "/o/* /a/:splat?b=:splat#:splat",
        "/o/:x/* /.:x?:splat",
    ],
)
@given(splat=HOSTILE, x=HOSTILE)
@example(splat="/evil.example", x="")
@example(splat="\\evil.example", x=".")
def test_no_piece_leads_to_another_host(line: str, splat: str, x: str) -> None:
    location = redirect(line).resolve({"splat": splat, "x": x})
    for browser in (location, location.replace("\\", "/")):
        assert urlsplit(urljoin("http://h/x", browser)).netloc == "h"
    assert location.startswith("/") and not location.startswith(("//", "/\\"))
    assert location.isascii() and location.isprintable() and " " not in location
    assert ".." not in urlsplit(location).path.split("/")


@given(HOSTILE)
def test_no_piece_changes_the_host_of_an_absolute_target(splat: str) -> None:
    location = redirect("/o/* https://b.example/:splat?c=:splat").resolve({"splat": splat})
    assert location.startswith("https://b.example/") and location.isascii() and location.isprintable()
    assert urlsplit(location).netloc == "b.example"
    assert urlsplit(location).query.startswith("c=") and "&" not in urlsplit(location).query


@given(st.lists(st.sampled_from(["a", "é", "%C3%A9", "x:y", "%3Ab", "c%20d"]), max_size=4).map("/".join))
def test_canonical_pieces_make_a_canonical_path(splat: str) -> None:
    path = canonical("/o/" + splat)
    assert path is not None
    target = went("/o/* /n/:splat 200", path)
    assert target is not None and canonical(target) == target


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/a", "no target"),
        ("/a 301", "no target"),
        ("/* 200!", "no target"),
        ("/a /b 418", "status '418'"),
        ("/a /b 300", "status '300'"),
        ("/a /b 301!!", "status '301!!'"),
        ("/a /b !", "status '!'"),
        ("/a /b ٣٠١", "status"),
        ("/a /b 0301", "status"),
        ("/a /b /c", "status '/c'"),
        ("/a /b 301 /c", "too many words"),
        ("/my page /b 301 302", "too many words"),
        ("a /b", "begins with /"),
        ("*", "no target"),
        ("* /b", "begins with /"),
        ("https://b.example/* /b", "`hosts` in site.toml"),
        ("http://b.example /b", "`hosts` in site.toml"),
        ("//b.example/x /b", "can never be a path"),
        ("/a//b /c", "can never be a path"),
        ("/../a /c", "can never be a path"),
        ("/a%2fb /c", "can never be a path"),
        ("/a%5cb /c", "can never be a path"),
        ("/a%zz /c", "can never be a path"),
        ("/a%ff /c", "can never be a path"),
        ("/a%00 /c", "can never be a path"),
        ("/a\x00 /c", "can never be a path"),
        ("/a?x=1 /c", "not at queries"),
        ("/a#x /c", "not at queries"),
        ("/a*/b /c", "stands alone"),
        ("/a* /c", "stands alone"),
        ("/*/b /c", "stands alone"),
        ("/*/* /c", "stands alone"),
        ("/*.jpg /c", "stands alone"),
        ("/a-:b /c", "whole segment"),
        ("/:b.html /c", "whole segment"),
        ("/:a/:a /c", "name twice"),
        ("/:splat /c", ":splat"),
        ("/:splat/* /c", ":splat"),
        ("/a /:x", "has :x, which the path has not"),
        ("/a /:splat", "has :splat, which the path has not"),
        ("/:x /:splat", "has :splat"),
        ("/:x /b#:y", "has :y"),
        ("/:x https://b.example/:y", "has :y"),
        ("/a b", "neither a path"),
        ("/a //evil.example", "neither a path"),
        ("/a ///evil.example", "neither a path"),
        ("/a /\\evil.example", "backslash"),
        ("/a https:\\\\evil.example", "backslash"),
        ("/a https://b.example\\@evil.example", "backslash"),
        ("/a javascript:alert(1)", "neither a path"),
        ("/a data:text/html,x", "neither a path"),
        ("/a ftp://b.example/", "neither a path"),
        ("/a mailto:a@b.example", "neither a path"),
        ("/a ?b", "neither a path"),
        ("/a #b", "no target"),
        ("/a /b\x01", "control character"),
        ("/a /b\x7f", "control character"),
        ("/a /b%0d%0aX", "can never be a path"),
        ("/a /b%5cc", "can never be a path"),
        ("/a /../b", "can never be a path"),
        ("/a /b%", "broken %"),
        ("/a /b?c%0", "broken %"),
        ("/* https://:splat/", "could choose where it leads"),
        ("/:x https://:x.example/", "could choose where it leads"),
        ("/:x https://b.example:x", "could choose where it leads"),
        ("/:x https://b.example:x@c.example/", "could choose where it leads"),
        ("/a https://user@b.example/", "no plain host name"),
        ("/a https://bücher.example/", "no plain host name"),
        ("/a https:///b", "no plain host name"),
        ("/a https://b.example:port0!/", "could choose where it leads"),
        ("/a https://b..example/", "no plain host name"),
        ("/a https://[::1]/", "no plain host name"),
        ("/a https://b.example/ 200", "no proxy"),
        ("/api/* https://b.example/:splat 200!", "no proxy"),
        ("/a https://b.example/ 404", "no proxy"),
        ("/a https://b.example/ 410", "no proxy"),
        ("/a /b.html?x 200", "no ? or #"),
        ("/a /b.html#x 404", "no ? or #"),
        ("/store id=:id /blog/:id 301", "not supported"),
        ("/a id=:id", "not supported"),
        ("/a /b 302 Country=us", "not supported"),
        ("/a /b Country=us,at", "not supported"),
        ("/a /b 301 Language=de Country=at", "not supported"),
        ("/admin/* /a/:splat 200! Role=admin", "not supported"),
        ("/a /a", "loop"),
        ("/a /a 302!", "loop"),
        ("/a /%61#b", "loop"),
        ("/a /a?b=1", "loop"),
        ("/%3Aa /%3Aa", "loop"),
        ("/a/* /a/:splat 301", "loop"),
        ("/:a/b /:a/b 308", "loop"),
        ("/* /:splat", "loop"),
    ],
)
def test_line_that_cannot_be_meant_is_refused(line: str, reason: str) -> None:
    assert reason in refused(line)


@pytest.mark.parametrize(
    "line", ["/a /a 200", "/a /a/", "/a/ /a", "/a /A", "/a/* /b/a/:splat", "/a https://b.example/a"]
)
def test_line_that_only_looks_like_a_loop_is_taken(line: str) -> None:
    assert redirect(line)


@pytest.mark.parametrize("again", ["/a", "/%61", "/a?"])
def test_same_path_again_is_refused(again: str) -> None:
    with pytest.raises(RulesError) as caught:
        redirects(f"\n/a /b\n{again} /c 302!", REDIRECTS)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{REDIRECTS}:3: ")
    assert "line 2" in problem or "?" in again


@pytest.mark.parametrize("source", ["/*", "/a/*", "/:x", "/caf\u00e9"])
def test_same_pattern_again_is_refused(source: str) -> None:
    with pytest.raises(RulesError, match="line 1 is about the same path"):
        redirects(f"{source} /z\n{source} /y", REDIRECTS)


def test_other_pattern_and_escaped_star_are_not_the_same() -> None:
    assert len(redirects("/* /z 200\n/%2A /y\n/:x /z\n/:y /z\n/a /z\n/A /z", REDIRECTS)) == 6


def test_all_bad_lines_are_told_at_once_in_order() -> None:
    with pytest.raises(RulesError) as caught:
        redirects("/a /b\nx /y\r\n\r\n# fine\n/a /c\n/d /e 999\n/f /g", REDIRECTS)
    assert [problem.split(":")[1] for problem in caught.value.problems] == ["2", "5", "6"]
    assert str(caught.value) == "\n".join(caught.value.problems)


def test_line_break_that_no_editor_shows_counts_no_line() -> None:
    with pytest.raises(RulesError) as caught:
        redirects("/a /b # \u2028 \x0b \x85\nx /y", REDIRECTS)
    assert caught.value.problems[0].startswith(f"{REDIRECTS}:2: ")


@given(
    st.text(max_size=80)
    | st.lists(st.sampled_from(["/a", " ", "\n", "/*", "/:x", ":splat", "301", "!", "https://", "%", "#", "\t"])).map(
        "".join
    )
)
def test_no_text_fails_otherwise_than_by_its_problems(text: str) -> None:
    for read in (redirects, headers):
        try:
            read(text, REDIRECTS)
        except RulesError as error:
            assert error.problems


# _headers


def test_block_sets_for_its_paths_only() -> None:
    text = "/a\n  X-One: 1\n/b/*\n\tX-Two:2\n"
    assert sent(text, "/a") == {"x-one": "1"}
    assert sent(text, "/b/c") == {"x-two": "2"}
    assert sent(text, "/c") == {}


@pytest.mark.parametrize(
    "text",
    [
        "/a\n X: y",
        "\ufeff/a\r\n\tX: y\r\n",
        "# x\n/a  \n\n  # y\n    X:   y  \n#z",
        "/a\r  X:y",
        "/%61\n  x: y",
    ],
)
def test_block_may_be_written_so(text: str) -> None:
    assert sent(text, "/a") == {"x": "y"}


def test_value_keeps_colons_hashes_and_stars() -> None:
    text = "/a\n  Link: <https://b.example/#c>; rel=x # y\n  Access-Control-Allow-Origin: *"
    assert sent(text, "/a") == {"link": "<https://b.example/#c>; rel=x # y", "access-control-allow-origin": "*"}


def test_rule_wins_over_the_default() -> None:
    assert sent("/*\n  Cache-Control: no-store", "/a", cache_control="no-cache", x="y") == {
        "cache-control": "no-store",
        "x": "y",
    }


def test_same_name_is_joined() -> None:
    text = "/*\n  Cache-Control: public\n  cache-control: max-age=60\n/a\n  CACHE-CONTROL: immutable"
    assert sent(text, "/a", cache_control="no-cache") == {"cache-control": "public, max-age=60, immutable"}
    assert sent(text, "/b") == {"cache-control": "public, max-age=60"}


def test_removal_takes_the_default_and_what_came_before() -> None:
    text = "/*\n  X: 1\n/a/*\n  ! x\n  ! Content-Security-Policy\n/a/b\n  X: 2"
    assert sent(text, "/a/c", content_security_policy="default-src 'self'") == {}
    assert sent(text, "/a/b", content_security_policy="default-src 'self'") == {"x": "2"}
    assert sent(text, "/c", content_security_policy="-") == {"content-security-policy": "-", "x": "1"}


def test_removal_and_setting_in_one_block_replaces() -> None:
    assert sent("/*\n  X: 1\n/a\n  X: 2\n  !X", "/a", x="0") == {"x": "2"}


def test_vary_is_added_to_the_server_s_own() -> None:
    assert sent("/*\n  Vary: Cookie", "/a", vary="Accept-Encoding") == {"vary": "Accept-Encoding, Cookie"}
    assert sent("/*\n  Vary: Cookie", "/a") == {"vary": "Cookie"}


def test_star_may_stand_anywhere_once() -> None:
    assert sent("/*.jpg\n  X: y", "/a/b.jpg") == {"x": "y"}
    assert sent("/:lang/f*/:name\n  X: y", "/de/fonts/a") == {"x": "y"}


def test_same_path_may_come_again() -> None:
    assert sent("/a\n  X: 1\n/a\n  X: 2", "/a") == {"x": "1, 2"}


@pytest.mark.parametrize("name", [*sorted(RESERVED_HEADERS), "ETag", "Set-Cookie"])
def test_name_that_the_server_owns_is_refused(name: str) -> None:
    assert [problem[:2] for problem in problems(f"/a\n  {name}: x\n  ! {name}")] == ["2:", "3:"]


@pytest.mark.parametrize("name", ["Vary", "Server-Timing", "Content-Type", "Content-Security-Policy", "Link"])
def test_other_name_may_be_set(name: str) -> None:
    assert sent(f"/a\n  {name}: x", "/a") == {name.lower(): "x"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("  X: y", "1: a header before any path"),
        ("\n\n\tX: y\n/a\n X: y", "3: a header before any path"),
        ("/a\nX: y\n  Y: z", "2: 'X: y': a header is indented"),
        ("/a\n! X\n  Y: z", "2: '! X': a header is indented"),
        ("/a", "1: is a path without headers"),
        ("/a\n/b\n  X: y", "1: is a path without headers"),
        ("/a\n  # X: y", "1: is a path without headers"),
        ("/a\n  X", "2: 'X' is no header"),
        ("/a\n  /b", "2: '/b' is no header"),
        ("/a\n  X:", "2: the value of X is empty"),
        ("/a\n  X: \t ", "2: the value of X is empty"),
        ("/a\n  X: é", "2: the value of X"),
        ("/a\n  X: a\tb", "2: the value of X"),
        ("/a\n  X: a\x00b", "2: the value of X"),
        ("/a\n  X: a\x0bb", "2: the value of X"),
        ("/a\n  X: a\x7f", "2: the value of X"),
        ("/a\n  X Y: z", "2: 'X Y' is no name"),
        ("/a\n  X : z", "2: 'X ' is no name"),
        ("/a\n  : z", "2: '' is no name"),
        ("/a\n  Ü: z", "2: 'Ü' is no name"),
        ("/a\n  !", "2: '' is no name"),
        ("/a\n  ! X: y", "2: 'X: y' is no name"),
        ("/a\n  ! Vary", "2: Vary is the server's own"),
        ("https://b.example/*\n  X: y", "1: 'https://b.example/*' is an address"),
        ("a\n  X: y", "1: 'a' is not a path"),
        ("*\n  X: y", "1: '*' is not a path"),
        ("/a b\n  X: y", "1: the path '/a b' has a space"),
        ("/a # why\n  X: y", "1: the path '/a # why' has a space"),
        ("/a?b\n  X: y", "1: the path '/a?b' has a ?"),
        ("/*/*\n  X: y", "1: the path '/*/*' has more than one *"),
        ("/*%2A\n  X: y", "1: the path '/*%2A' has more than one *"),
        ("/:a*\n  X: y", "1: in ':a*': a placeholder"),
        ("/../a\n  X: y", "1: '/../a' can never be a path"),
        ("/a//b\n  X: y", "1: '/a//b' can never be a path"),
    ],
)
def test_line_of_headers_that_cannot_be_meant_is_refused(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(problem)


def test_all_bad_lines_of_headers_are_told_at_once_in_order() -> None:
    found = problems("  A: b\n/a\n/b\n  ETag: x\n  Y: é\nhttps://x.example/\n  X: y\n")
    assert [problem.split(":")[0] for problem in found] == ["1", "2", "4", "5", "6"]


def test_values_are_frozen() -> None:
    with pytest.raises(AttributeError):
        redirect("/a /b").status = 302  # type: ignore[misc]
    assert isinstance(redirect("/a /b").source, Pattern)
