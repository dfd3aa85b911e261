"""Both sites as a visitor meets them, in Chromium: the forms with and without JavaScript, and the mails they send."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import REPOSITORY
from tests.e2e.conftest import Server, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.browser]


@dataclass(frozen=True)
class Visit:
    """A site's form and what a visitor enters there, by field."""

    slug: str
    form: str
    owner: str
    typed: dict[str, str]
    chosen: dict[str, str]


VISITS = [
    Visit(
        "pet_care",
        "join/",
        "frontdesk@puddleandpaw.example",
        {"name": "Zoë O'Neil", "pet_name": "Bärli", "message": "Shy at first.\nLikes <b>cheese</b> & walks."},
        {"pet_kind": "Dog", "needs": "Walks"},
    ),
    Visit(
        "interior_design",
        "start/",
        "letters@stillroom.example",
        {"name": "Zoë O'Neil", "message": "North light.\nHigh ceilings {{7*7}}."},
        {"room": "Kitchen", "budget": "5,000 to 15,000", "timing": "Within a year"},
    ),
]


@pytest.fixture
def real_sites(tmp_path: Path) -> Iterator[Server]:
    """The server with the repository's own sites."""
    environ = {"DOORBELL_SITES_DIR": str(REPOSITORY / "sites"), "DOORBELL_DATA_DIR": str(tmp_path / "var")}
    server = Server(environ, tmp_path / "server.log")
    server.start()
    yield server
    assert server.end() == 0


def page_of(browser: Browser, javascript: bool) -> tuple[Page, list[str]]:
    """A new page, and what goes wrong in it."""
    page = browser.new_context(java_script_enabled=javascript).new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("requestfailed", lambda request: wrong.append(request.url))
    return page, wrong


def fill(page: Page, visit: Visit, email: str) -> None:
    page.locator("[name=email]").fill(email)
    for name, text in visit.typed.items():
        page.locator(f"[name={name}]").fill(text)
    for name, choice in visit.chosen.items():
        page.locator(f"[name={name}]").select_option(choice)


def check_mails(server: Server, visit: Visit, email: str) -> None:
    """The visitor has a welcome that repeats nothing, the owner a notice with everything."""
    wait_until(lambda: len(server.mails()) == 2)
    mails = {str(mail["Delivered-To"]): mail for mail in server.mails()}
    bodies = {to: [part.get_content() for part in mail.walk() if not part.is_multipart()] for to, mail in mails.items()}
    assert set(mails) == {email, visit.owner}
    assert mails[visit.owner]["Reply-To"] == email
    text, html = bodies[visit.owner]
    for value in [email, *visit.typed.values(), *visit.chosen.values()]:
        assert value.splitlines()[-1] in text.replace("\r\n", "\n")
    assert "<b>cheese</b>" not in html
    for value in visit.typed.values():
        assert not any(value.splitlines()[0] in body for body in bodies[email])


@pytest.mark.parametrize("visit", VISITS, ids=lambda visit: visit.slug)
def test_form_with_javascript(browser: Browser, real_sites: Server, visit: Visit) -> None:
    page, wrong = page_of(browser, javascript=True)
    page.goto(f"{real_sites.url}/{visit.slug}")
    expect(page).to_have_url(f"{real_sites.url}/{visit.slug}/")
    page.locator(f"a[href*='{visit.form.strip('/')}']").first.click()
    expect(page).to_have_url(f"{real_sites.url}/{visit.slug}/{visit.form}")
    fill(page, visit, "visitor@example.com")
    page.locator("form[data-doorbell] button").click()
    expect(page.locator("[data-doorbell-status=success]")).to_be_visible()
    expect(page).to_have_url(f"{real_sites.url}/{visit.slug}/{visit.form}")  # in place
    check_mails(real_sites, visit, "visitor@example.com")
    assert wrong == []


@pytest.mark.parametrize("visit", VISITS, ids=lambda visit: visit.slug)
def test_form_without_javascript(browser: Browser, real_sites: Server, visit: Visit) -> None:
    page, wrong = page_of(browser, javascript=False)
    page.goto(f"{real_sites.url}/{visit.slug}/{visit.form}")
    fill(page, visit, "visitor@example.com")
    page.locator("form[data-doorbell] button").click()
    expect(page).to_have_url(f"{real_sites.url}/thanks/{visit.slug}")
    expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    check_mails(real_sites, visit, "visitor@example.com")
    assert wrong == []


@pytest.mark.parametrize("visit", VISITS, ids=lambda visit: visit.slug)
def test_errors_stand_beside_their_fields(browser: Browser, real_sites: Server, visit: Visit) -> None:
    page, _ = page_of(browser, javascript=True)
    page.goto(f"{real_sites.url}/{visit.slug}/{visit.form}")
    # passes the browser's own check, and not the server's
    fill(page, visit, "visitor@nowhere")
    page.locator("form[data-doorbell] button").click()
    email = page.locator("[name=email]")
    expect(page.locator("#email-error")).to_contain_text("not a valid e-mail address")
    expect(email).to_have_attribute("aria-invalid", "true")
    expect(email).to_be_focused()
    expect(page.locator("[name=name]")).to_have_value(visit.typed["name"])
    email.fill("visitor@example.com")
    page.locator("form[data-doorbell] button").click()
    expect(page.locator("[data-doorbell-status=success]")).to_be_visible()
    check_mails(real_sites, visit, "visitor@example.com")


@pytest.mark.parametrize("visit", VISITS, ids=lambda visit: visit.slug)
def test_without_javascript_what_was_typed_is_kept(browser: Browser, real_sites: Server, visit: Visit) -> None:
    page, wrong = page_of(browser, javascript=False)
    page.goto(f"{real_sites.url}/{visit.slug}/{visit.form}")
    fill(page, visit, "visitor@nowhere")
    page.locator("form[data-doorbell] button").click()
    expect(page.locator("#email-error")).to_contain_text("not a valid e-mail address")
    for name, value in {**visit.typed, **visit.chosen}.items():
        expect(page.locator(f"[name={name}]")).to_have_value(value)
    page.locator("[name=email]").fill("visitor@example.com")
    page.get_by_role("button", name="Send").click()
    expect(page).to_have_url(f"{real_sites.url}/thanks/{visit.slug}")
    check_mails(real_sites, visit, "visitor@example.com")
    # the page with the errors is a 422, which Chromium reports as an error of its own
    assert [line for line in wrong if "422" not in line] == []


def test_nothing_typed_is_lost_when_the_server_is_away(browser: Browser, real_sites: Server) -> None:
    visit = VISITS[0]
    page, _ = page_of(browser, javascript=True)
    page.goto(f"{real_sites.url}/{visit.slug}/{visit.form}")
    fill(page, visit, "visitor@example.com")
    real_sites.end()
    page.locator("form[data-doorbell] button").click()
    expect(page.locator("[data-doorbell-status=error]")).to_contain_text("could not reach")
    expect(page.locator("[name=message]")).to_have_value(visit.typed["message"])
    real_sites.start()
    page.locator("form[data-doorbell] button").click()
    expect(page.locator("[data-doorbell-status=success]")).to_be_visible()


def test_mailbox_shows_the_mail_and_runs_nothing_in_it(browser: Browser, real_sites: Server) -> None:
    visit = VISITS[0]
    script = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    form = {"site": visit.slug, "email": "visitor@example.com", "pet_name": script, "pet_kind": "Dog"}
    assert httpx.post(f"{real_sites.url}/signup", json=form).status_code == 422  # longer than 60 characters
    form |= {"pet_name": "Rex", "message": script}
    assert httpx.post(f"{real_sites.url}/signup", json=form).status_code == 202
    wait_until(lambda: len(real_sites.mails()) == 2)
    page, wrong = page_of(browser, javascript=True)
    page.goto(f"{real_sites.url}/_mailbox/")
    page.get_by_text("New signup").click()
    expect(page.frame_locator("iframe").get_by_text("document.title")).to_be_visible()
    expect(page).to_have_title("New signup: Puddle & Paw")
    assert wrong == []


def test_docs_draw_without_inline_script(browser: Browser, real_sites: Server) -> None:
    page, wrong = page_of(browser, javascript=True)
    page.goto(f"{real_sites.url}/docs")
    expect(page.get_by_role("button", name="POST /signup Sign up")).to_be_visible()
    assert wrong == []
