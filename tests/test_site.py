from pathlib import Path

import pytest

from server.site import RESERVED_FIELDS, RESERVED_SLUGS, Site, SiteError, address, load, load_all, mailbox
from tests.conftest import add_site, unprivileged


def problem(folder: Path) -> str:
    """The one line that says why the site in `folder` is refused."""
    with pytest.raises(SiteError) as caught:
        load(folder)
    (line,) = caught.value.problems
    return line


def made(tmp_path: Path, toml: str) -> Site:
    return load(add_site(tmp_path, "bikes", toml))


def test_title_and_index_are_a_complete_site(tmp_path: Path) -> None:
    site = made(tmp_path, 'title = "Bike Shed"')
    assert (site.slug, site.title, site.locale, site.hosts, site.spa) == ("bikes", "Bike Shed", "en", (), False)
    assert (site.mail.sender, site.mail.notify, dict(site.signup.fields)) == (None, (), {})
    assert site.signup.double_opt_in is True


def test_every_key_of_the_contract_parses(tmp_path: Path) -> None:
    toml = """
    title = "Bike Shed"
    locale = "de-AT"
    hosts = ["bikes.example", "www.bikes.example"]
    spa = true
    colors = { accent = "#1A6B54" }
    [mail]
    from = "Bike Shed <hello@bikes.example>"
    notify = ["owner@bikes.example"]
    [signup]
    double_opt_in = false
    thanks = "thank-you/"
    allowed_origins = ["https://shop.example"]
    next = ["https://shop.example/done"]
    proof_of_work = true
    [signup.fields.colour]
    type = "select"
    label = "Which colour?"
    required = true
    choices = ["Red", "Green"]
    [signup.fields.note]
    type = "textarea"
    max = 12
    """
    site = made(tmp_path, toml)
    assert (site.locale, site.spa, site.colors.accent) == ("de-AT", True, "#1a6b54")
    assert (site.signup.double_opt_in, site.signup.thanks) == (False, "thank-you/")
    assert site.signup.fields["colour"].choices == ("Red", "Green")
    assert (site.signup.fields["note"].limit, site.label("note")) == (12, "Note")


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('titel = "B"\ntitle = "A"', "titel: unknown key"),
        ('title = "A"\n[mail]\nform = "x"', "mail.form: unknown key"),
        ('title = "A"\n[signup]\ndouble_optin = true', "signup.double_optin: unknown key"),
        ('title = "A"\n[signup.fields.x]\nlable = "L"', "signup.fields.x.lable: unknown key"),
        ('title = "A"\nslug = "other"', "slug: unknown key"),
        ('title = "A"\nfolder = "/etc"', "folder: unknown key"),
        ("", "title: "),
        ('title = ""', "title: "),
        ('title = "A\\nBcc: x@y.example"', "title: "),
        ('title = "A"\nlocale = "English"', "locale: "),
        ('title = "A"\nhosts = ["https://a.example"]', "hosts.0: must be a lower-case host name"),
        ('title = "A"\ncolors = { accent = "red; } body { display: none" }', "colors.accent: must be a colour"),
        ('title = "A"\n[mail]\nfrom = "nobody"', "mail.from: An email address must have an @-sign"),
        ('title = "A"\n[mail]\nfrom = "a@b.example, c@d.example"', "mail.from: must look like"),
        ('title = "A"\n[mail]\nfrom = "A\\r\\nBcc: <a@b.example>"', "mail.from: must look like"),
        ('title = "A"\n[mail]\nnotify = ["a@localhost"]', "mail.notify.0: "),
        ('title = "A"\n[signup]\nthanks = "//evil.example"', "signup.thanks: must be a path inside the site"),
        ('title = "A"\n[signup]\nthanks = "../other/"', "signup.thanks: must be a path inside the site"),
        ('title = "A"\n[signup.fields.email]\ntype = "text"', "fields.email: is a name the server uses"),
        ('title = "A"\n[signup.fields.Shoe-Size]\ntype = "text"', "fields.Shoe-Size: must be a-z"),
        ('title = "A"\n[signup.fields.x]\ntype = "file"', "signup.fields.x.type: "),
        ('title = "A"\n[signup.fields.x]\ntype = "select"', "a select needs choices"),
        ('title = "A"\n[signup.fields.x]\nchoices = ["a"]', "a select needs choices"),
        ('title = "A"\n[signup.fields.x]\ntype = "select"\nchoices = ["a", "a"]', "a choice is listed twice"),
        ('title = "A"\n[signup.fields.x]\ntype = "checkbox"\nmax = 3', "max does not apply to a checkbox"),
        ('title = "A', "at end of document"),
    ],
)
def test_refused_by_name(tmp_path: Path, toml: str, said: str) -> None:
    folder = add_site(tmp_path, "bikes", toml)
    line = problem(folder)
    assert line.startswith(f"{folder / 'site.toml'}: ")
    assert said in line


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    folder = add_site(tmp_path, "bikes", 'titel = "x"\nspa = "perhaps"')
    with pytest.raises(SiteError) as caught:
        load(folder)
    assert len(caught.value.problems) == 3  # the missing title too


@pytest.mark.parametrize("slug", [*sorted(RESERVED_SLUGS), "Bikes", "a b", "ä", "x.y", "-x", "a" * 64])
def test_slug_that_is_taken_or_no_slug(tmp_path: Path, slug: str) -> None:
    assert "a site's folder must be named" in problem(add_site(tmp_path, slug, 'title = "A"'))


@pytest.mark.parametrize("name", sorted(RESERVED_FIELDS))
def test_reserved_field(tmp_path: Path, name: str) -> None:
    folder = add_site(tmp_path, "bikes", f'title = "A"\n[signup.fields.{name}]\ntype = "text"')
    assert name in problem(folder)


def test_without_first_page(tmp_path: Path) -> None:
    folder = add_site(tmp_path, "bikes", 'title = "A"')
    (folder / "public" / "index.html").unlink()
    assert str(folder / "public" / "index.html") in problem(folder)


def test_toml_that_is_not_utf8(tmp_path: Path) -> None:
    folder = add_site(tmp_path, "bikes", "")
    (folder / "site.toml").write_bytes(b'title = "Caf\xe9"')
    assert "site.toml: cannot be read" in problem(folder)


def test_folder_that_is_locked(tmp_path: Path) -> None:
    with unprivileged() as open_folder:
        sites = open_folder / "sites"
        folder = add_site(sites, "bikes", 'title = "A"')
        (folder / "public").chmod(0)
        assert "cannot be read" in problem(folder)
        folder.chmod(0)
        _, problems = load_all(sites)
        assert len(problems) == 1 and str(folder) in problems[0]
        folder.chmod(0o755)
        (folder / "public").chmod(0o755)


def test_folders_without_site_toml_are_no_sites(tmp_path: Path) -> None:
    add_site(tmp_path, "bikes", 'title = "A"')
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").write_text("x")
    sites, problems = load_all(tmp_path)
    assert (list(sites), problems) == (["bikes"], [])


def test_one_broken_site_does_not_hide_another(tmp_path: Path) -> None:
    add_site(tmp_path, "a", "nonsense")
    add_site(tmp_path, "b", 'title = "B"\nx = 1')
    add_site(tmp_path, "c", 'title = "C"')
    sites, problems = load_all(tmp_path)
    assert list(sites) == ["c"]
    assert [str(tmp_path / slug) in line for slug, line in zip("ab", problems, strict=True)] == [True, True]


def test_host_claimed_twice(tmp_path: Path) -> None:
    add_site(tmp_path, "a", 'title = "A"\nhosts = ["x.example"]')
    add_site(tmp_path, "b", 'title = "B"\nhosts = ["x.example"]')
    _, (line,) = load_all(tmp_path)
    assert line == f"{tmp_path / 'b' / 'site.toml'}: hosts: x.example is claimed by a too"


def test_sites_folder_missing(tmp_path: Path) -> None:
    sites, (line,) = load_all(tmp_path / "none")
    assert (sites, line) == ({}, f"{tmp_path / 'none'}: cannot be read: No such file or directory")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("A@EXAMPLE.com", "A@example.com"),
        ("o'neil+tag@example.com", "o'neil+tag@example.com"),
        ("a{b}@example.com", "a{b}@example.com"),
        ("a@bücher.example", "a@xn--bcher-kva.example"),
        ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
        ("a@bu\u0308cher.example", "a@xn--bcher-kva.example"),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com"),
    ],
)
def test_address_has_one_spelling(written: str, read: str) -> None:
    assert address(written) == read


@pytest.mark.parametrize(
    "written",
    [
        "",
        "a",
        "@example.com",
        "a@",
        "a" * 65 + "@example.com",
        "a@" + ".".join(["b" * 60] * 4) + ".example.com",
        '"a b"@example.com',
        "a@[127.0.0.1]",
        "a@localhost",
        "a@b",
        "a@b.c, e@x.y",
        "a@b.example;c@d.example",
        "alice@example.org)bob@evil.com",
        "Alice <alice@example.org>",
        "a@example.com\r\nBcc: b@example.com",
        "a@b.example>\r\nDATA",
        "a@exa{mple.com",
        "a@example.com\x00",
        "ü@example.com",
        "a\u202e@example.com",
        "a..b@example.com",
        "a@example..com",
        "a@ex ample.com",
    ],
)
def test_address_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        address(written)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("hello@bikes.example", "hello@bikes.example"),
        ("Bike Shed <hello@BIKES.example>", "Bike Shed <hello@bikes.example>"),
        ('"Smith, Jones & Co." <a@b.example>', '"Smith, Jones & Co." <a@b.example>'),
        ('"A \\"B\\" C" <a@b.example>', '"A \\"B\\" C" <a@b.example>'),
        ("Café Zoë <a@b.example>", "Café Zoë <a@b.example>"),
        ("Bikes <noreply@localhost>", "Bikes <noreply@localhost>"),
    ],
)
def test_sender(written: str, read: str) -> None:
    assert mailbox(written) == read
    assert mailbox(read) == read


@pytest.mark.parametrize(
    "written", ["", "Bikes", "Smith, Jones <a@b.example>", "ü@localhost", "x y@localhost", "a@b.example, c@d.example"]
)
def test_sender_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        mailbox(written)
