"""A signup from the form to the welcome, and out again, in Chromium; and what is asked of visitors under attack."""

import re
from collections.abc import Iterator
from email.message import EmailMessage
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Page, Route, expect

from tests.conftest import add_site
from tests.e2e.conftest import HTTP, Desk, ForkedServer, Server, free_port
from tests.e2e.forms import mails_of, texts

pytestmark = [pytest.mark.e2e, pytest.mark.browser]

FORM = """<!doctype html><html lang="en"><title>{slug}</title><link rel="icon" href="{server}/_doorbell/icon.svg">
<form method="post" action="{server}/signup" data-doorbell data-success="It is here.">
<input type="hidden" name="site" value="{slug}">
<label>E-mail <input name="email" type="email"></label>
<label>Message <textarea name="message"></textarea></label>
<p hidden><input name="website"></p>
<button>Send</button><p data-doorbell-status role="status"></p></form>
<script src="{server}/_doorbell/form.js" defer></script>"""
TOML = """title = "{slug}"
[mail]
from = "hello@{slug}.example"
notify = ["owner@{slug}.example"]
[signup]
allowed_origins = ["http://127.0.0.1:{port}"]
proof_of_work = {proof}
[signup.fields.message]
type = "textarea"
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """A port, and the folder of the pages there."""
    return free_port(), tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory, elsewhere: tuple[int, Path]) -> Iterator[Server]:
    """A server with two sites: `lamps` asks to confirm, `work` asks for work too."""
    root = tmp_path_factory.mktemp("asking")
    for slug, proof in (("lamps", "false"), ("work", "true")):
        page = {"index.html": FORM.format(slug=slug, server="")}
        add_site(root / "sites", slug, TOML.format(slug=slug, port=elsewhere[0], proof=proof), page)
    environ = {"DOORBELL_SITES_DIR": str(root / "sites"), "DOORBELL_DATA_DIR": str(root / "var")}
    server = ForkedServer({**environ, "DOORBELL_ACCESS_LOG": "on"}, root / "log")
    server.start()
    yield server
    assert server.end() == 0


def send(page: Page, email: str) -> None:
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Message").fill("First line\n<b>second</b>")
    page.get_by_role("button", name="Send").click()


def accepted(page: Page) -> None:
    expect(page.locator("[data-doorbell-status=success]")).to_have_text("It is here.")


def link(mail: EmailMessage, kind: str) -> str:
    """That in the mail's text."""
    (found,) = set(re.findall(rf"http://localhost:[0-9]+/{kind}/\S+", texts(mail)[0]))
    return str(found)


def test_from_the_form_to_the_welcome_and_out_again(desk: Desk, asking: Server) -> None:
    page, wrong = desk.page()
    page.goto(f"{asking.url}/lamps/")
    send(page, "ann@example.com")
    accepted(page)
    (asked,) = mails_of(asking, "ann@example.com", 1)
    assert "second" not in texts(asked)[0]
    for _ in range(2):  # a scanner looks at it first
        assert HTTP.get(link(asked, "confirm")).status_code == 200
    page.goto(link(asked, "confirm"))
    mails_of(asking, "ann@example.com", 1)
    page.get_by_role("button").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Thank you, that is confirmed")
    page.reload()  # the browser sends it again
    expect(page.get_by_role("heading", level=1)).to_have_text("Thank you, that is confirmed")
    told = {str(mail["Subject"]): mail for mail in mails_of(asking, "ann@example.com", 3)}
    del told[str(asked["Subject"])]
    welcome, notice = sorted(told.values(), key=lambda mail: str(mail["Delivered-To"]).startswith("owner@"))
    assert "<b>second</b>" in texts(notice)[0]
    page.get_by_role("link", name="Back to the website").click()
    expect(page).to_have_url(f"{asking.url}/lamps/")

    page.goto(str(welcome["List-Unsubscribe"]).strip("<>"))
    page.get_by_role("button", name="Unsubscribe").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("You are unsubscribed")
    one_click = HTTP.post(str(asked["List-Unsubscribe"]).strip("<>"), data={"List-Unsubscribe": "One-Click"})
    assert (one_click.status_code, one_click.text) == (200, "Unsubscribed.\n")
    assert wrong == []
    assert "/confirm/***" in asking.log and "/unsubscribe/***" in asking.log
    assert link(asked, "confirm").rpartition("/")[2] not in asking.log and "example.com" not in asking.log


def test_script_does_the_work_unseen(desk: Desk, asking: Server) -> None:
    page, wrong = desk.page()
    page.goto(f"{asking.url}/work/")
    with page.expect_request("**/signup") as posted:
        send(page, "bob@example.com")
    accepted(page)
    assert '"altcha":"' in str(posted.value.post_data) and '"_token":"' in str(posted.value.post_data)
    mails_of(asking, "bob@example.com", 1)
    send(page, "bob2@example.com")  # another signup, another proof
    accepted(page)
    assert wrong == []


def test_script_does_the_work_when_an_attack_began_after_the_page_was_opened(desk: Desk, asking: Server) -> None:
    def before(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "proof": False})

    page, wrong = desk.page()
    page.route("**/_doorbell/token/**", before)
    page.goto(f"{asking.url}/work/")
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status) if answer.url.endswith("/signup") else None)
    send(page, "cid@example.com")
    accepted(page)
    assert statuses == [429, 202]
    assert [line for line in wrong if "429" not in line] == []


@pytest.mark.parametrize("gone", ["token", "challenge"])
def test_form_is_sent_where_the_script_gets_no_answer(desk: Desk, asking: Server, gone: str) -> None:
    page, _ = desk.page()
    page.route(f"**/_doorbell/{gone}/**", lambda route: route.abort())
    page.goto(f"{asking.url}/{'lamps' if gone == 'token' else 'work'}/")
    send(page, f"dan-{gone}@example.com")
    if gone == "token":
        accepted(page)
    else:
        expect(page.locator("[data-doorbell-status=error]")).to_contain_text("still here")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_lost_answer_and_another_try_are_one_signup(desk: Desk, asking: Server) -> None:
    page, _ = desk.page()
    keys: list[str] = []

    def lost(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        assert route.fetch().status == 202
        route.abort() if len(keys) == 1 else route.continue_()

    page.route("**/signup", lost)
    page.goto(f"{asking.url}/lamps/")
    send(page, "eve@example.com")
    expect(page.locator("[data-doorbell-status=error]")).to_contain_text("could not reach")
    page.get_by_role("button", name="Send").click()
    accepted(page)
    assert len(keys) == 2 and len(set(keys)) == 1
    mails_of(asking, "eve@example.com", 1)
    send(page, "eve2@example.com")
    accepted(page)
    assert len(set(keys)) == 2


def test_button_comes_after_a_while_without_a_script(desk: Desk, asking: Server) -> None:
    page, wrong = desk.page(javascript=False)
    page.goto(f"{asking.url}/work/")
    send(page, "fay@example.com")
    expect(page.get_by_role("heading", level=1)).to_have_text("One moment, please")
    page.get_by_role("button").click()  # as soon as it can be: were that too early, the same page would come again
    expect(page.get_by_role("heading", level=1)).to_have_text("Thank you")
    mails_of(asking, "fay@example.com", 1)
    assert [line for line in wrong if "429" not in line] == []


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("slug", ["lamps", "work"])
def test_form_on_a_page_of_another_origin(desk: Desk, asking: Server, elsewhere: tuple[int, Path], slug: str) -> None:
    port, folder = elsewhere
    (folder / f"{slug}.html").write_text(FORM.format(slug=slug, server=asking.url))
    with ThreadingHTTPServer(("127.0.0.1", port), partial(_Quiet, directory=str(folder))) as pages:
        Thread(target=pages.serve_forever, daemon=True).start()
        page, wrong = desk.page()
        page.goto(f"http://127.0.0.1:{port}/{slug}.html")
        send(page, "no address")
        expect(page.locator("[name=email]")).to_have_attribute("aria-invalid", "true")
        send(page, f"gus-{slug}@example.com")
        accepted(page)
        pages.shutdown()
    assert wrong == []
