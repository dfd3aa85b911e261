"""Both sites as a visitor meets them, in Chromium: the forms with and without JavaScript, and the mails they send."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.conftest import REPOSITORY
from tests.e2e.conftest import HTTP, Desk, ForkedServer, Server, wait_until
from tests.e2e.forms import VISITS, Place, Visit, check_mails, fill, send
from tests.provision import furnish

pytestmark = [pytest.mark.e2e, pytest.mark.browser]

EVERY = pytest.mark.parametrize("visit", VISITS, ids=lambda visit: visit.slug)
PLACES = pytest.mark.parametrize("place", ["path", "domain"])
# One site here, the other there: what differs between the places is seen by `test_form_with_javascript`.
EITHER = pytest.mark.parametrize(
    ("visit", "place"), [(VISITS[0], "path"), (VISITS[1], "domain")], ids=["path", "domain"]
)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """The repository's sites on a server of this test alone."""
    environ = {"DOORBELL_SITES_DIR": str(REPOSITORY / "sites"), "DOORBELL_DATA_DIR": str(tmp_path / "var")}
    furnish(tmp_path / "var")
    server = ForkedServer(environ, tmp_path / "server.log")
    server.start()
    yield server
    assert server.end() == 0


@EVERY
@PLACES
def test_form_with_javascript(desk: Desk, real_sites: Server, visit: Visit, place: Place) -> None:
    page, wrong = desk.page()
    base, email = visit.base(real_sites, place), visit.visitor(f"script-{place}")
    page.goto(base.removesuffix("/") if place == "path" else base)
    expect(page).to_have_url(base)
    page.locator(f"a[href$='{visit.form}']:visible").first.click()
    expect(page).to_have_url(base + visit.form)
    fill(page, visit, email)
    send(page).click()
    expect(page.locator("[data-doorbell-status=success]")).to_be_visible()
    expect(page).to_have_url(base + visit.form)  # in place
    check_mails(real_sites, visit, email)
    assert wrong == []


@EITHER
def test_form_without_javascript(desk: Desk, real_sites: Server, visit: Visit, place: Place) -> None:
    page, wrong = desk.page(javascript=False)
    base, email = visit.base(real_sites, place), visit.visitor(f"plain-{place}")
    page.goto(base + visit.form)
    fill(page, visit, email)
    send(page).click()
    expect(page).to_have_url(base + "thank-you/")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    check_mails(real_sites, visit, email)
    assert wrong == []


@EITHER
def test_form_by_keyboard_alone(desk: Desk, real_sites: Server, visit: Visit, place: Place) -> None:
    page, wrong = desk.page()
    email = visit.visitor(f"keys-{place}")
    page.goto(visit.base(real_sites, place) + visit.form)
    left = {"email": email, **visit.typed, **visit.chosen}
    for _ in range(60):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.name")
        if name in left:
            page.keyboard.type(left.pop(name))  # in a list of choices, this goes to the one that begins so
        if not left and page.evaluate("document.activeElement.type") == "submit":
            break
    assert left == {}
    page.keyboard.press("Enter")
    expect(page.locator("[data-doorbell-status=success]")).to_be_focused()
    check_mails(real_sites, visit, email)
    assert wrong == []


@EVERY
def test_errors_stand_beside_their_fields(desk: Desk, real_sites: Server, visit: Visit) -> None:
    page, _ = desk.page()
    page.goto(visit.base(real_sites, "path") + visit.form)
    # passes the browser's own check, and not the server's
    fill(page, visit, "visitor@nowhere")
    send(page).click()
    email = page.locator("[name=email]")
    error = page.locator(".doorbell-error:not(:empty)")
    expect(error).to_contain_text("not a valid e-mail address")
    expect(email).to_have_attribute("aria-invalid", "true")
    expect(email).to_have_accessible_description(re.compile("not a valid e-mail address"))
    expect(email).to_be_focused()  # and so it is read out, with its description
    expect(page.locator("[name=name]")).to_have_value(visit.typed["name"])
    email.fill(visit.visitor("errors"))
    expect(error).to_have_count(0)
    send(page).click()
    expect(page.locator("[data-doorbell-status=success]")).to_be_visible()
    check_mails(real_sites, visit, visit.visitor("errors"))


@EVERY
@pytest.mark.parametrize("width", [360, 1280])
def test_errors_move_nothing(desk: Desk, real_sites: Server, visit: Visit, width: int) -> None:
    page, _ = desk.page(width=width)
    page.goto(visit.base(real_sites, "path") + visit.form)
    before = page.evaluate(_PLACES)
    send(page).click()
    expect(page.locator("[aria-invalid=true]")).to_have_count(len(visit.required))
    expect(page.locator(f"[name={visit.required[0]}]")).to_be_focused()
    assert page.evaluate(_PLACES) == pytest.approx(before, abs=1)


# Where the controls of the form are and how large, whatever was scrolled. Less than a pixel is not to be seen.
_PLACES = """
() => [...document.querySelector("form[data-doorbell]").elements].filter((control) => control.checkVisibility())
  .flatMap((control) => {
    const { x, y, width, height } = control.getBoundingClientRect();
    return [x, y + scrollY, width, height];
  })
"""


@EVERY
def test_button_says_that_it_is_sending(desk: Desk, real_sites: Server, visit: Visit) -> None:
    page, wrong = desk.page()
    page.goto(visit.base(real_sites, "path") + visit.form)
    held: list[Route] = []
    page.route("**/signup", lambda route: held.append(route))
    fill(page, visit, visit.visitor("sending"))
    button = send(page)
    idle, places = button.inner_text(), page.evaluate(_PLACES)
    with page.expect_request("**/signup"):
        button.click()
    expect(button).to_be_disabled()
    expect(page.locator("form[data-doorbell]")).to_have_attribute("aria-busy", "true")
    assert button.inner_text() != idle
    assert page.evaluate(_PLACES) == pytest.approx(places, abs=1)
    page.keyboard.press("Enter")  # twice is once
    held[0].continue_()
    expect(page.locator("[data-doorbell-status=success]")).to_be_focused()
    expect(page.locator("form[data-doorbell]")).not_to_have_attribute("aria-busy", "true")
    assert len(held) == 1
    assert wrong == []


@EVERY
def test_without_javascript_what_was_typed_is_kept(desk: Desk, real_sites: Server, visit: Visit) -> None:
    page, wrong = desk.page(javascript=False)
    base = visit.base(real_sites, "path")
    page.goto(base + visit.form)
    fill(page, visit, "visitor@nowhere")
    send(page).click()
    expect(page.locator("#email-error")).to_contain_text("not a valid e-mail address")
    for name, value in {**visit.typed, **visit.chosen}.items():
        expect(page.locator(f"[name={name}]")).to_have_value(value)
    page.locator("[name=email]").fill(visit.visitor("kept"))
    page.get_by_role("button", name="Send").click()
    expect(page).to_have_url(base + "thank-you/")
    check_mails(real_sites, visit, visit.visitor("kept"))
    # the page with the errors is a 422, which Chromium reports as an error of its own
    assert [line for line in wrong if "422" not in line] == []


@EVERY
def test_nothing_typed_is_lost_when_the_server_is_away(desk: Desk, own_server: Server, visit: Visit) -> None:
    page, _ = desk.page()
    page.goto(visit.base(own_server, "path") + visit.form)
    fill(page, visit, "away@example.com")
    own_server.end()
    send(page).click()
    expect(page.locator("[data-doorbell-status=error]")).to_contain_text("could not reach")
    expect(page.locator("[name=message]")).to_have_value(visit.typed["message"])
    own_server.start()
    send(page).click()
    expect(page.locator("[data-doorbell-status=success]")).to_be_visible()


def test_mailbox_shows_the_mail_and_runs_nothing_in_it(desk: Desk, own_server: Server) -> None:
    visit = VISITS[1]  # which tells its owner at once
    script = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    form = {"site": visit.slug, "email": "visitor@example.com", "room": script}
    assert HTTP.post(f"{own_server.url}/signup", json=form).status_code == 422  # none of the rooms
    form |= {"room": "Kitchen", "message": script}
    assert HTTP.post(f"{own_server.url}/signup", json=form).status_code == 202
    wait_until(lambda: len(own_server.mails()) == 2)
    page, wrong = desk.page()
    page.goto(f"{own_server.url}/_mailbox/")
    page.get_by_text("A letter to").click()
    expect(page.frame_locator("iframe").get_by_text("document.title")).to_be_visible()
    expect(page).to_have_title("A letter to Stillroom: Kitchen")
    assert wrong == []


def test_docs_draw_without_inline_script(desk: Desk, own_server: Server) -> None:
    page, wrong = desk.page()
    page.goto(f"{own_server.url}/docs")
    expect(page.get_by_role("button", name="POST /signup Sign up")).to_be_visible()
    assert wrong == []
