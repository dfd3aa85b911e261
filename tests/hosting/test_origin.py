"""Which host serves what: sites under their paths and on their domains, and the program's own addresses beside them."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from server import hosting
from server.hosting import SnapshotError, Source
from server.site import RESERVED_SLUGS
from server.web.middleware import SECURITY_HEADERS
from tests.hosting.conftest import PUBLIC, Both, Client, bikes, both, publish, request, write


def sources(folder: Path) -> list[Source]:
    """Two sites with domains, one without, and the program's own files."""
    for name in ("bikes", "lamps", "shoes"):
        files = {"index.html": name, "x.txt": f"x of {name}", "404.html": f"no {name}"}
        write(folder / name, dict(files))
    write(folder / "_doorbell", {"form.js": "let form"})
    return [
        hosting.read("_doorbell", folder / "_doorbell"),
        hosting.read("bikes", folder / "bikes", hosts=("bikes.example", "www.bikes.example")),
        hosting.read("lamps", folder / "lamps", hosts=("lamps.example",)),
        hosting.read("shoes", folder / "shoes"),
    ]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with both(publish(*sources(tmp_path_factory.mktemp("origin")))) as pair:
        yield pair


# -- which host ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "bikes.example",
        "www.bikes.example",
        "BIKES.example",
        "Bikes.Example.",
        "bikes.example:8000",
        "bikes.example.:443",
    ],
)
def test_domain_of_a_site_serves_it_at_its_root(host: Both, name: str) -> None:
    assert host.ask("/", host=name).body == b"bikes"
    assert host.ask("/x.txt?a", host=name).body == b"x of bikes"
    assert host.ask("/index.html", host=name)["location"] == "./"
    missing = host.ask("/none", host=name)
    assert (missing.status, missing.body) == (404, b"no bikes")


def test_each_domain_has_its_own_site(host: Both) -> None:
    assert host.ask("/x.txt", host="lamps.example").body == b"x of lamps"
    assert host.ask("/x.txt", host="bikes.example").body == b"x of bikes"


@pytest.mark.parametrize("path", ["/bikes/", "/bikes", "/lamps/", "/lamps/x.txt", "/shoes/"])
def test_domain_of_a_site_has_no_other_site(host: Both, path: str) -> None:
    reply = host.ask(path, host="bikes.example")
    assert (reply.status, reply.body) == (404, b"no bikes")


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "127.0.0.1:8000",
        "[::1]:8000",
        "[::1]",
        "unknown.example",
        "evil-bikes.example",
        "bikes.example.evil.example",
        "xbikes.example",
        "sub.bikes.example",
        "example",
        ":80",
        "",
    ],
)
def test_any_other_host_has_all_sites_under_their_paths(host: Both, name: str) -> None:
    for slug in ("bikes", "lamps", "shoes"):
        assert host.ask(f"/{slug}/", host=name).body == slug.encode()
        assert host.ask(f"/{slug}/none", host=name).body == f"no {slug}".encode()
    assert host.ask("/", host=name).body == b"app /"
    assert host.ask("/x.txt", host=name).body == b"app /x.txt"
    assert host.ask("/bikesx/", host=name).body == b"app /bikesx/"


def test_host_is_looked_at_for_each_request_of_a_connection(host: Both) -> None:
    host.send(request("/", host="bikes.example") + request("/", host="lamps.example"))


# -- the program's own addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["localhost", "bikes.example", "lamps.example", "unknown.example"])
def test_files_of_the_program_are_on_every_host(host: Both, name: str) -> None:
    assert host.ask("/_doorbell/form.js", host=name).body == b"let form"
    assert host.ask("/_doorbell/none.js", host=name).body == b"app /_doorbell/none.js"


@pytest.mark.parametrize("segment", sorted(PUBLIC))
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_public_address_is_the_program_s_on_a_domain_too(host: Both, segment: str, method: str) -> None:
    for path in (f"/{segment}", f"/{segment}/x", f"/{segment}?x"):
        if path.partition("?")[0] == "/_doorbell":
            continue  # it has a slash to come
        for name in ("localhost", "bikes.example"):
            assert host.ask(path, method, host=name).body == b"app " + path.partition("?")[0].encode()


@pytest.mark.parametrize("segment", sorted(RESERVED_SLUGS - PUBLIC))
def test_address_of_the_operator_is_not_on_a_domain(host: Both, segment: str) -> None:
    variants = [
        f"/{segment}",
        f"/{segment}/",
        f"/{segment}/x",
        f"/{segment}?x",
        f"/%{ord(segment[0]):02x}{segment[1:]}",
    ]
    variants += [f"//{segment}", f"/./{segment}", f"/x/../{segment}", f"/{segment}%2f", f"/{segment};x"]
    variants += [f"/signup/../{segment}", f"/healthz/%2e%2e/{segment}", f"/{segment.upper()}"]
    for path in variants:
        reply = host.ask(path, host="bikes.example")
        # What begins like a public address and is no path is the program's to refuse, which has nothing there.
        public = path.startswith(("/signup/", "/healthz/"))
        assert reply.body == (b"app " + unquote(path).encode() if public else b"no bikes"), path
    assert host.ask(f"/{segment}", host="localhost").body == f"app /{segment}".encode()


@pytest.mark.parametrize("target", ["http://bikes.example/readyz", "HTTP://BIKES.example/readyz"])
def test_address_of_the_operator_in_absolute_form(host: Both, target: str) -> None:
    assert host.ask(target, host="bikes.example").body == b"no bikes"


def test_absolute_form(host: Both) -> None:
    assert host.ask("http://bikes.example/x.txt?a", host="bikes.example").body == b"x of bikes"
    assert host.ask("http://localhost/lamps/x.txt", host="localhost").body == b"x of lamps"


def test_host_of_an_absolute_form_is_the_one_that_counts(host: Both) -> None:
    # RFC 9112 section 3.2.2: the Host field must be ignored. An ASGI application is not told of the other.
    client = Client(host.ports["lane"])
    assert host.run(client.ask("http://bikes.example/x.txt", host="localhost")).body == b"x of bikes"
    assert host.run(client.ask("http://localhost/bikes/x.txt", host="bikes.example")).body == b"x of bikes"
    assert host.run(client.ask("http://localhost/readyz", host="bikes.example")).body == b"app /readyz"


@pytest.mark.parametrize("segment", sorted(RESERVED_SLUGS))
@pytest.mark.parametrize("name", ["{}", "{}.html", "{}/index.html", "{}/a/x.txt"])
def test_site_with_a_domain_cannot_have_a_path_of_the_program(tmp_path: Path, segment: str, name: str) -> None:
    public = write(tmp_path / "public", {"index.html": "x", name.format(segment): "x"})
    with pytest.raises(SnapshotError) as caught:
        publish(hosting.read("bikes", public, hosts=("bikes.example",)))
    (problem,) = caught.value.problems
    assert problem.startswith("bikes: ") and f"/{segment}:" in problem
    publish(hosting.read("bikes", public))


@pytest.mark.parametrize("name", ["signup.txt", "signups/x.txt", "a/signup.html", "Signup/x.txt", "readyz-now.html"])
def test_site_with_a_domain_may_have_a_path_that_looks_alike(tmp_path: Path, name: str) -> None:
    public = write(tmp_path / "public", {"index.html": "x", name: "mine"})
    with both(publish(hosting.read("bikes", public, hosts=("bikes.example",)))) as host:
        assert host.ask("/" + name.removesuffix(".html"), host="bikes.example").body == b"mine"


@pytest.mark.parametrize("path", ["/signup", "/signup/*", "/:any", "/healthz", "/*", "/confirm/:token"])
@pytest.mark.parametrize("target", ["/x.txt 302!", "/x.txt 302", "/x.txt 200"])
def test_rule_of_a_site_does_not_take_a_path_of_the_program(tmp_path: Path, path: str, target: str) -> None:
    """Such a rule is refused at start, or does nothing."""
    files = {"index.html": "x", "x.txt": "mine", "_redirects": f"{path} {target}"}
    public = write(tmp_path / "public", dict(files))
    try:
        published = publish(hosting.read("bikes", public, hosts=("bikes.example",)))
    except SnapshotError as error:
        assert "_redirects" in str(error)
        return
    with both(published) as host:
        for taken in ("/signup", "/signup/x", "/healthz", "/confirm/x"):
            assert host.ask(taken, "POST", host="bikes.example").body == b"app " + taken.encode()


def test_site_with_a_domain_and_no_first_page(tmp_path: Path) -> None:
    with both(bikes(tmp_path, {"a.txt": "a"}, hosts=("bikes.example",))) as host:
        assert host.ask("/", host="bikes.example").status == 404
        assert host.ask("/bikes/").status == 404
        assert host.ask("/bikes")["location"] == "./bikes/"


# -- requests that are not in order --------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [b"/bikes/", b"/", b"/x.txt", b"/bikes/none", b"/signup"])
@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Host: bikes.example\r\nHost: bikes.example\r\n",
        b"Host: bikes.example\r\nHost: lamps.example\r\n",
        b"host: localhost\r\nAccept: */*\r\nHOST: localhost\r\n",
        b"Host: bikes.example, lamps.example\r\n",
    ],
)
def test_request_that_does_not_name_one_host(host: Both, target: bytes, lines: bytes) -> None:
    reply = host.send(b"GET %s HTTP/1.1\r\n%s\r\n" % (target, lines))
    assert reply.status == 400
    assert reply["content-type"] == "text/plain; charset=utf-8"
    assert b"bikes" not in reply.body and b"lamps" not in reply.body


def test_refusal_is_guarded_too(host: Both) -> None:
    reply = host.send(b"GET /bikes/ HTTP/1.1\r\n\r\n")
    assert SECURITY_HEADERS.items() <= dict(reply.headers).items()


@pytest.mark.parametrize(
    "name",
    [
        "bikes.example/x",
        "user@bikes.example",
        "bikes example",
        "bikes.example?x",
        "a\\b",
        "b.example:80:80",
        "b.example:x",
        "a" * 5000,
    ],
)
def test_host_that_is_none_is_refused(host: Both, name: str) -> None:
    # RFC 9112 section 3.2: 400 to a Host field with an invalid value.
    assert host.ask("/bikes/", host=name).status == 400


def test_http_1_0_needs_no_host(host: Both) -> None:
    reply = host.send(b"GET /bikes/x.txt HTTP/1.0\r\n\r\n")
    assert (reply.status, reply.body) == (200, b"x of bikes")
    reply = host.send(b"GET /x.txt HTTP/1.0\r\nHost: bikes.example\r\n\r\n")
    assert (reply.status, reply.body) == (200, b"x of bikes")
    assert host.send(b"GET /bikes/ HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n").status == 400


# -- another publication -------------------------------------------------------------------------------------------


def test_what_is_published_anew_is_answered_at_once(tmp_path: Path) -> None:
    with both(bikes(tmp_path, {"x.txt": "one"})) as host:
        before = host.ask("/bikes/x.txt")
        published = bikes(tmp_path, {"x.txt": "two", "new.txt": "new"})
        assert host.ask("/bikes/x.txt").body == b"one"
        host.served.published = published
        assert host.ask("/bikes/x.txt").body == b"two"
        assert host.ask("/bikes/new.txt").status == 200
        assert host.ask("/bikes/x.txt", if_none_match=before["etag"]).status == 200


def test_every_problem_of_every_site_is_told(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"a.html": "x", "_redirects": "/x /none 200"})
    two = write(tmp_path / "two", {"b.html": "x", "readyz.html": "x"})
    with pytest.raises(SnapshotError) as caught:
        publish(hosting.read("one", one), hosting.read("two", two, hosts=("two.example",)))
    assert len(caught.value.problems) == 2
