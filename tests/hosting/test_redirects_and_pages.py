"""Addresses, redirects, rewrites and 404 pages, under the site's path and on its domain; each asked of both ways."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server import hosting
from server.hosting import SnapshotError
from tests.hosting.conftest import Both, Client, Reply, bikes, both, publish, write

# A host, and what stands there before the site's own paths.
MOUNTS = [("localhost", "/bikes"), ("bikes.example", "")]
LINKS = '<link href="style.css"><a href="a/">a</a><a href="/root">r</a><a href="#x">x</a>'
ROOTED = '<link href="{0}/style.css"><a href="{0}/a/">a</a><a href="/root">r</a><a href="#x">x</a>'

FILES: dict[str, str | bytes] = {
    "index.html": f"Home {LINKS}",
    "style.css": "b{}",
    "style.css.gz": b"\x1f\x8b not really",
    "style.css.br": b"not really",
    "a/index.html": "A",
    "about.html": "About",
    "both.html": "Both, a page",
    "both/index.html": "Both, a folder",
    "twin": "Twin without",
    "twin.html": "Twin with",
    "c:d.html": "Colon",
    "café.html": "Coffee",
    "dir/page.html": "Page",
    "new.html": "New",
    "forced.html": "hidden by a rule",
    "hidden/x.txt": "hidden by a rule",
    "help/guide/index.html": f"Guide {LINKS}",
    "items/lamp.html": '<a href="../a/">a</a>',
    "gone.html": f"Gone {LINKS}",
    "robots.txt": "User-agent: *",
    "404.html": f"Nothing {LINKS}",
    "deep/404.html": 'Nothing deep <a href="../style.css">s</a><a href="x">x</a>',
    "deep/er/x.txt": "x",
    ".env": "SECRET",
    ".git/config": "SECRET",
    ".well-known/security.txt": "Contact: x",
    "_redirects": """
# Comment
/old            /new            301
/found          /new            302
/see            /new            303
/same           /new            307
/for-ever       /new            308
/usual          /new
/blog/*         /news/:splat    301
/shop/:kind/:item  /store/:item?kind=:kind  302
/app/*          /index.html     200
/guide          /help/guide/    200
/plain          /robots.txt     200
/show/:name/now /items/:name    200
/was            /gone.html      410
/lost/*         /about          404
/about          /new            302
/forced         /new            302!
/hidden/*       /new            302!
/first/*        /one            302
/first/x        /two            302
/away           https://elsewhere.example/x?y=1  301
/away/*         https://elsewhere.example/in/:splat  302
/asked          /new?own=1      302
/part           /new#part       302
/to/*           /:splat         302
/of/:name       /:name          302
/caf%c3%a9-old  /café           301
""",
    "_headers": "/*\n  X-Site: bikes\n",
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("pages")
    with both(bikes(folder, FILES, hosts=("bikes.example",), cache=folder / "cache")) as pair:
        yield pair


@pytest.fixture(params=MOUNTS, ids=["path", "domain"])
def mount(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    return found


def resolved(mount: tuple[str, str], target: str, reply: Reply) -> str:
    """Where a browser goes that was sent on."""
    return urljoin(f"http://{mount[0]}{target}", reply["location"])


# -- the one address of a file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "leads_to", "location"),
    [
        ("/index.html", "/", "./"),
        ("/a/index.html", "/a/", "./"),
        ("/a", "/a/", "./a/"),
        ("/about.html", "/about", "./about"),
        ("/dir/page.html", "/dir/page", "./page"),
        ("/help/guide", "/help/guide/", "./guide/"),
        ("/both.html", "/both", "./both"),
        ("/c:d.html", "/c:d", "./c:d"),
        ("/caf%C3%A9.html", "/caf%C3%A9", "./caf%C3%A9"),
    ],
)
def test_other_address_leads_to_the_one(
    host: Both, mount: tuple[str, str], asked: str, leads_to: str, location: str
) -> None:
    name, base = mount
    for query in ("", "?x=1&y=%20", "?//evil.example", "?a?b"):
        reply = host.ask(base + asked + query, host=name)
        assert (reply.status, reply["location"]) == (308, location + query)
        assert resolved(mount, base + asked + query, reply) == f"http://{name}{base}{leads_to}{query}"
        assert host.ask(base + leads_to + query, host=name).status == 200


def test_slash_of_the_site_itself_is_added(host: Both) -> None:
    reply = host.ask("/bikes?x=1", host="evil.example")
    assert (reply.status, reply["location"]) == (308, "./bikes/?x=1")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("/both", "Both, a page"),
        ("/both/", "Both, a folder"),
        ("/twin", "Twin without"),
        ("/twin.html", "Twin with"),
        ("/%61bout", "About"),
        ("/caf%C3%A9", "Coffee"),
        ("/caf%c3%a9", "Coffee"),
        ("/cafe%CC%81", "Coffee"),
        ("/c%3Ad", "Colon"),
        ("/.well-known/security.txt", "Contact: x"),
    ],
)
def test_file_is_found(host: Both, mount: tuple[str, str], asked: str, text: str) -> None:
    name, base = mount
    reply = host.ask(base + asked, host=name)
    assert (reply.status, reply.body.decode()) == (200, text)


@pytest.mark.parametrize(
    "asked",
    [
        "/About",
        "/ABOUT.HTML",
        "/new/",
        "/about.html/",
        "/about.htm",
        "/style.css/",
        "/style.css/more",
        "/dir",
        "/dir/",
        "/a//",
        "//a/",
        "/./a/",
        "/a/../a/",
        "/a%2f",
        "/caf%E9",
        "/_redirects",
        "/_headers",
        "/_Headers",
        "/%5fheaders",
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/.git",
        "/.git/",
        "/404.html",
        "/404",
        "/404/",
        "/deep/404.html",
        "/deep/404",
        "/site.toml",
        "/public/index.html",
        "/bikes/index.html",
    ],
)
def test_nothing_is_there(host: Both, mount: tuple[str, str], asked: str) -> None:
    name, base = mount
    reply = host.ask(base + asked, host=name)
    assert reply.status == 404
    assert b"SECRET" not in reply.body and b"X-Site" not in reply.body
    assert b"Nothing" in reply.body or (base, asked[:2]) == ("", "//")


def test_compressed_file_beside_another_is_a_file_like_any_other(host: Both) -> None:
    packed = host.ask("/bikes/style.css.gz", accept_encoding="gzip")
    assert (packed.body, packed["content-type"]) == (FILES["style.css.gz"], "application/gzip")
    assert "content-encoding" not in packed
    for accept in ("gzip", "br", "gzip, br, zstd"):
        assert host.ask("/bikes/style.css", accept_encoding=accept).body == b"b{}"


# -- no way to another host ----------------------------------------------------------------------------------------

HOSTILE = [
    "//evil.example",
    "//evil.example/",
    "//evil.example/a",
    "//evil.example/about.html",
    "///evil.example/a",
    "////evil.example/a",
    "/%5cevil.example/a",
    "/\\evil.example/a",
    "\\\\evil.example/a",
    "/%5c%5cevil.example",
    "/%2fevil.example/a",
    "/%2f%2fevil.example",
    "/%09/evil.example/a",
    "/%0a/evil.example/a",
    "/%0d%0aLocation:%20//evil.example",
    "/.//evil.example/a",
    "/..//evil.example/a",
    "/%2e//evil.example/a",
    "/;//evil.example/a",
    "/@evil.example/a",
    "/:evil.example/a",
    "/http://evil.example/a",
    "/https:evil.example",
    "/javascript:alert(1)",
    "/a?//evil.example",
    "/a?next=//evil.example",
    "/about.html?//evil.example",
    "/about.html?@evil.example",
    "/a#//evil.example",
]
# Rules that put what was asked into the target.
CARRIERS = ["/to", "/of", "/blog", "/away"]


def check_location(mount: tuple[str, str], target: str, reply: Reply) -> None:
    """A redirect stays on the host, or goes where a rule says."""
    assert "injected" not in reply and reply.all("location") == reply.all("location")[:1]
    if reply.all("location"):
        assert reply["location"].isascii() and reply["location"].isprintable()
        path = target if target.startswith("/") else "/"
        # As browsers read it: a backslash is a slash.
        leads_to = urlsplit(urljoin(f"http://{mount[0]}{path}", reply["location"].replace("\\", "/")))
        by_rule = leads_to.netloc == "elsewhere.example" and target.startswith(mount[1] + "/away")
        assert by_rule or (leads_to.scheme, leads_to.netloc) == ("http", mount[0]), (target, reply["location"])


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_path_leads_to_another_host(host: Both, mount: tuple[str, str], hostile: str) -> None:
    name, base = mount
    prefixes = ["", base, base + "/a", *(base + carrier for carrier in CARRIERS)]
    for target in {prefix + hostile for prefix in prefixes}:
        reply = host.ask(target, host=name)
        assert reply.status in (200, 301, 302, 308, 400, 404), target
        check_location(mount, target, reply)


@pytest.mark.parametrize("path", ["/a", "/bikes", "/bikes/a", "//a", "/bikes//a", "/to//evil.example"])
def test_absolute_form_with_another_host_leads_nowhere_else(host: Both, mount: tuple[str, str], path: str) -> None:
    for port in host.ports.values():
        reply = host.run(Client(port).ask("http://evil.example" + path, host=mount[0]))
        assert reply.status in (200, 302, 308, 404)
        assert not any(urlsplit(location).netloc for location in reply.all("location"))


PIECES = "/ // \\ . .. %2f %5c %2e evil.example a about.html : @ ? # ; %0d%0a %00 é %C3%A9 http: index.html"


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(MOUNTS),
    st.sampled_from(["", "/a", *CARRIERS]),
    st.lists(st.sampled_from(PIECES.split()), max_size=7),
)
@example(MOUNTS[1], "/to", ["/", "%5c", "evil.example"])
def test_no_path_at_all_leads_to_another_host(
    host: Both, mount: tuple[str, str], carrier: str, pieces: list[str]
) -> None:
    target = mount[1] + carrier + "/" + "".join(pieces)
    reply = host.ask(target, host=mount[0])
    assert reply.status < 500
    check_location(mount, target, reply)


@pytest.mark.parametrize("asked", ["", "/a", "/about.html", "/old", "/to/x", "/away"])
def test_line_break_in_the_query_stays_encoded(host: Both, mount: tuple[str, str], asked: str) -> None:
    name, base = mount
    if base + asked:
        reply = host.ask(base + asked + "?v=1%0d%0aInjected:%20yes", host=name)
        assert reply.status in (301, 302, 308)
        assert "injected" not in reply
        own_query = "?v=1%0d%0aInjected:%20yes" if asked != "/away" else "?y=1"
        assert reply["location"].endswith(own_query)


# -- _redirects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "status", "target"),
    [
        ("/old", 301, "/new"),
        ("/found", 302, "/new"),
        ("/see", 303, "/new"),
        ("/same", 307, "/new"),
        ("/for-ever", 308, "/new"),
        ("/usual", 301, "/new"),
        ("/old?x=1", 301, "/new?x=1"),
        ("/old/?x=1", 301, "/new?x=1"),
        ("/%6fld", 301, "/new"),
        ("/blog/2024/01/x", 301, "/news/2024/01/x"),
        ("/blog/", 301, "/news/"),
        ("/blog", 301, "/news/"),
        ("/blog/caf%c3%a9", 301, "/news/caf%C3%A9"),
        ("/shop/bike/red", 302, "/store/red?kind=bike"),
        ("/shop/a%26b/c%3Fd", 302, "/store/c%3Fd?kind=a%26b"),
        ("/forced", 302, "/new"),
        ("/hidden/x.txt", 302, "/new"),
        ("/first/x", 302, "/one"),
        ("/asked?x=1", 302, "/new?own=1"),
        ("/part?x=1", 302, "/new?x=1#part"),
        ("/caf%C3%A9-old", 301, "/caf%C3%A9"),
    ],
)
def test_rule_sends_on(host: Both, mount: tuple[str, str], asked: str, status: int, target: str) -> None:
    name, base = mount
    for method in ("GET", "HEAD", "POST"):
        reply = host.ask(base + asked, method, host=name)
        assert (reply.status, reply["location"]) == (status, base + target)
        assert reply["content-length"] == "0"
        assert reply["cache-control"] == ("public, max-age=3600" if status in (301, 308) else "no-cache")
        assert reply["x-content-type-options"] == "nosniff"


def test_rule_sends_away(host: Both, mount: tuple[str, str]) -> None:
    name, base = mount
    assert host.ask(base + "/away", host=name)["location"] == "https://elsewhere.example/x?y=1"
    assert host.ask(base + "/away/a/b?q", host=name)["location"] == "https://elsewhere.example/in/a/b?q"


@pytest.mark.parametrize("asked", ["/old/x", "/OLD", "/shop/bike", "/shop/bike/red/x", "/shop//red", "/oldish"])
def test_rule_is_not_about(host: Both, mount: tuple[str, str], asked: str) -> None:
    assert host.ask(mount[1] + asked, host=mount[0]).status == 404


def test_file_is_stronger_than_a_rule(host: Both, mount: tuple[str, str]) -> None:
    name, base = mount
    reply = host.ask(base + "/about", host=name)
    assert (reply.status, reply.body) == (200, b"About")


@pytest.mark.parametrize("asked", ["/app/", "/app", "/app/x", "/app/x/y/z.js"])
def test_rewrite_answers_with_a_page_whose_links_hold(host: Both, mount: tuple[str, str], asked: str) -> None:
    name, base = mount
    reply = host.ask(base + asked, host=name)
    assert (reply.status, reply.body.decode()) == (200, "Home " + ROOTED.format(base))
    assert (reply["content-type"], reply["cache-control"]) == ("text/html; charset=utf-8", "no-cache")
    assert host.ask(base + asked, host=name, if_none_match=reply["etag"]).status == 304
    assert host.ask(base + asked, "POST", host=name).status == 405


def test_rewrite_of_a_page_in_a_folder(host: Both, mount: tuple[str, str]) -> None:
    name, base = mount
    reply = host.ask(base + "/guide", host=name)
    assert (reply.status, reply.body.decode()) == (200, "Guide " + ROOTED.format(base + "/help/guide"))


def test_rewrite_of_what_is_no_page(host: Both, mount: tuple[str, str]) -> None:
    name, base = mount
    reply = host.ask(base + "/plain", host=name)
    assert (reply.status, reply.body, reply["content-type"]) == (200, b"User-agent: *", "text/plain; charset=utf-8")


def test_rewrite_to_a_page_by_name(host: Both, mount: tuple[str, str]) -> None:
    name, base = mount
    assert host.ask(base + "/show/lamp/now", host=name).status == 200
    for none in ("/show/sofa/now", "/show/../now", "/show/..%2f..%2fsecret/now", "/show/404/now"):
        assert host.ask(base + none, host=name).status == 404


def test_links_of_a_page_by_name_hold(host: Both, mount: tuple[str, str]) -> None:
    name, base = mount
    assert host.ask(base + "/show/lamp/now", host=name).body.decode() == f'<a href="{base}/a/">a</a>'


def test_rule_says_that_a_page_is_gone(host: Both, mount: tuple[str, str]) -> None:
    name, base = mount
    reply = host.ask(base + "/was", host=name, range="bytes=0-1", if_none_match="*")
    assert (reply.status, reply.body.decode()) == (410, "Gone " + ROOTED.format(base))
    assert "etag" not in reply and "accept-ranges" not in reply and "last-modified" not in reply
    assert host.ask(base + "/was", "HEAD", host=name).status == 410


def test_rule_says_that_a_page_is_missing(host: Both, mount: tuple[str, str]) -> None:
    name, base = mount
    reply = host.ask(base + "/lost/and/found", host=name)
    assert (reply.status, reply.body) == (404, b"About")


def test_headers_of_the_page_count_at_another_address_too(host: Both) -> None:
    assert host.ask("/bikes/app/x")["x-site"] == "bikes"
    assert host.ask("/bikes/was")["x-site"] == "bikes"


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("_redirects", "/ok /new\n\n/bad\n", 3),
        ("_redirects", "/a /b 200x\n", 1),
        ("_redirects", "# x\n/a //evil.example\n", 2),
        ("_headers", "/*\n  X-A: b\n  Content-Length: 5\n", 3),
    ],
)
def test_bad_line_is_refused_by_file_and_line(tmp_path: Path, name: str, text: str, line: int) -> None:
    public = write(tmp_path / "public", {"index.html": "x", "new.html": "x", name: text})
    with pytest.raises(SnapshotError) as caught:
        hosting.read("bikes", public)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{public / name}:{line}: ")


@pytest.mark.parametrize(
    ("status", "target"), [("200", "/none"), ("404", "/none.html"), ("410", "/dir/"), ("200!", "/.env")]
)
def test_page_of_a_rule_that_is_not_there_is_refused(tmp_path: Path, status: str, target: str) -> None:
    files = {"dir/x.txt": "x", ".env": "x", "_headers": "# x", "_redirects": f"/ok /dir/x.txt\n/a {target} {status}"}
    public = write(tmp_path / "public", dict(files))
    with pytest.raises(SnapshotError) as caught:
        publish(hosting.read("bikes", public))
    (problem,) = caught.value.problems
    assert "_redirects" in problem and target in problem
    assert problem.startswith(f"{public / '_redirects'}:2: ")


def test_rules_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    public = write(tmp_path / "public", {"_redirects": b"/caf\xe9 /x"})
    with pytest.raises(SnapshotError, match="_redirects: is not UTF-8"):
        hosting.read("bikes", public)


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    public = write(tmp_path / "public", {"_redirects": "/a", "_headers": "x", "index.html": "x"})
    (public / "link").symlink_to("/etc/passwd")
    with pytest.raises(SnapshotError) as caught:
        hosting.read("bikes", public)
    assert len(caught.value.problems) == 3


# -- 404 pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["/none", "/none/", "/none/at/all", "/a/none", "/deeper/x", "/deep", "/" + "x/" * 50])
def test_missing_page_has_links_that_hold_at_any_depth(host: Both, mount: tuple[str, str], asked: str) -> None:
    name, base = mount
    reply = host.ask(base + asked, host=name)
    assert (reply.status, reply.body.decode()) == (404, "Nothing " + ROOTED.format(base))


@pytest.mark.parametrize("asked", ["/deep/", "/deep/x", "/deep/er/", "/deep/er/none/x", "/deep/%64", "/deep/404"])
def test_nearest_404_page_up_the_tree(host: Both, mount: tuple[str, str], asked: str) -> None:
    name, base = mount
    text = f'Nothing deep <a href="{base}/style.css">s</a><a href="{base}/deep/x">x</a>'
    reply = host.ask(base + asked, host=name)
    assert (reply.status, reply.body.decode()) == (404, text)


def test_site_without_a_404_page_has_the_built_in_one(tmp_path: Path) -> None:
    with both(bikes(tmp_path, {"index.html": "x"}, hosts=("bikes.example",))) as host:
        for name, base in MOUNTS:
            reply = host.ask(base + "/none/at/all", host=name)
            assert (reply.status, reply["content-type"]) == (404, "text/html; charset=utf-8")
            assert b"<h1>Not found</h1>" in reply.body


def test_site_whose_only_404_page_is_in_a_folder(tmp_path: Path) -> None:
    with both(bikes(tmp_path, {"deep/404.html": "Deep"})) as host:
        assert host.ask("/bikes/deep/x").body == b"Deep"
        assert b"<h1>Not found</h1>" in host.ask("/bikes/x").body


# -- single-page apps ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("app")
    files = {"index.html": f"App {LINKS}", "404.html": "Nothing", "app.js": "let a", "_redirects": "/old /new 301"}
    with both(bikes(folder, dict(files), hosts=("bikes.example",), spa=True)) as pair:
        yield pair


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    "headers",
    [
        {"accept": BROWSER},
        {"accept": "Text/HTML"},
        {"sec_fetch_mode": "navigate"},
        {"sec_fetch_mode": "navigate", "accept": BROWSER},
        {"sec_fetch_mode": "navigate", "accept": "*/*"},
    ],
)
@pytest.mark.parametrize("asked", ["/products", "/products/7", "/products/7.html", "/deep/er/"])
def test_app_answers_navigations(app: Both, mount: tuple[str, str], asked: str, headers: dict[str, str]) -> None:
    name, base = mount
    reply = app.ask(base + asked, host=name, **headers)
    assert (reply.status, reply.body.decode()) == (200, "App " + ROOTED.format(base))
    assert reply["vary"] == "accept-encoding, accept, sec-fetch-mode"
    assert reply["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"accept": "*/*"},
        {"accept": "application/json"},
        {"accept": ""},
        {"sec_fetch_mode": "no-cors", "sec_fetch_dest": "script", "accept": "*/*"},
        {"sec_fetch_mode": "no-cors", "accept": BROWSER},
        {"sec_fetch_mode": "cors", "accept": "text/html"},
        {"sec_fetch_mode": "same-origin", "accept": "text/html"},
    ],
)
@pytest.mark.parametrize("asked", ["/none.js", "/assets/none.css", "/products", "/api/x"])
def test_app_never_answers_what_is_no_navigation(
    app: Both, mount: tuple[str, str], asked: str, headers: dict[str, str]
) -> None:
    name, base = mount
    reply = app.ask(base + asked, host=name, **headers)
    assert (reply.status, reply.body) == (404, b"Nothing")
    assert reply["vary"] == "accept-encoding, accept, sec-fetch-mode"


def test_app_has_files_and_rules_first(app: Both, mount: tuple[str, str]) -> None:
    name, base = mount
    assert app.ask(base + "/app.js", host=name, accept=BROWSER).body == b"let a"
    assert app.ask(base + "/old", host=name, accept=BROWSER)["location"] == base + "/new"


@pytest.mark.parametrize("asked", ["/%2e%2e/x", "/a//b", "/%00", "/%ff", "/..%5cx"])
def test_app_does_not_answer_what_is_no_path(app: Both, mount: tuple[str, str], asked: str) -> None:
    name, base = mount
    assert app.ask(base + asked, host=name, accept=BROWSER).status == 404


def test_other_methods_on_a_page_of_an_app(app: Both) -> None:
    assert app.ask("/bikes/products", "POST", accept=BROWSER).status == 405
    assert app.ask("/bikes/products", "HEAD", accept=BROWSER).status == 200


# -- many rules ------------------------------------------------------------------------------------------------------


def test_first_of_many_rules_counts(tmp_path: Path) -> None:
    """Literals and patterns are looked up apart: their order must hold all the same."""
    lines = [
        "/a/one /first 302",
        "/a/* /second/:splat 302",
        "/a/two /never 302",
        "/:any/three /third 302",
        "/b/* /fourth 302",
        "/b/three /never 302",
        "/c /fifth 302",
        "/* /last 302",
    ]
    asked = {
        "/a/one": "/first",
        "/a/one/": "/first",
        "/a/two": "/second/two",
        "/a": "/second/",
        "/b/three": "/third",
        "/b/x": "/fourth",
        "/c": "/fifth",
        "/c/": "/fifth",
        "/c/d": "/last",
        "/x:y/z": "/last",
    }
    with both(bikes(tmp_path, {"index.html": "x", "_redirects": "\n".join(lines)})) as host:
        for path, location in asked.items():
            assert host.ask("/bikes" + path)["location"] == "/bikes" + location, path


def test_page_of_a_rewrite_is_ready_before_it_is_asked_for(tmp_path: Path) -> None:
    files = {"p/one.html": '<a href="two">two</a>', "p/two.html": "2", "_redirects": "/app/* /p/:splat 200"}
    with both(bikes(tmp_path, {"index.html": "x", **files}, budget=0)) as host:
        for file in tmp_path.rglob("one.html"):
            file.write_text("changed")
        assert host.ask("/bikes/app/one").body == b'<a href="/bikes/p/two">two</a>'
        assert host.ask("/bikes/p/one").status == 503
