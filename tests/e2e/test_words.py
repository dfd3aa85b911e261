"""form.js in Chromium, in the language of the page it is on: what it says itself, and what it asks the server for."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from server.web.pages import STATIC
from server.web.words import SCRIPT, translated
from tests.e2e.conftest import Desk

pytestmark = [pytest.mark.e2e, pytest.mark.browser]

PAGE = """
<!doctype html><html{}><meta charset="utf-8"><title>Form</title><link rel="icon" href="data:,">
<form method="post" action="/signup" data-doorbell><input name="email"><input name="closest"><button>Go</button>
<p data-doorbell-status></p></form><script src="/form.js"></script></html>
"""


@dataclass
class Form:
    """A page with a form; its posts get `answer`, None is no answer."""

    page: Page
    lang: str = ""
    answer: tuple[int, dict[str, str], str] | None = None
    asked: list[str] = field(default_factory=list)

    def open(self, lang: str) -> None:
        self.lang = f' lang="{lang}"' if lang else ""
        self.page.goto("http://site.example/")

    def send(self, answer: tuple[int, dict[str, str], str] | None) -> Locator:
        """Presses the button; answers what is said then."""
        self.answer = answer
        self.page.get_by_role("button").click()
        return self.page.locator("[data-doorbell-status]")

    def serve(self, route: Route) -> None:
        if route.request.method == "POST":
            self.asked.append(route.request.all_headers().get("accept-language", ""))
            self._reply(route)
        elif route.request.url.endswith(SCRIPT):
            script = translated((STATIC / SCRIPT).read_bytes())
            route.fulfill(body=script, content_type="text/javascript; charset=utf-8")
        else:
            route.fulfill(body=PAGE.format(self.lang), content_type="text/html")

    def _reply(self, route: Route) -> None:
        if self.answer is None:
            return route.abort()
        status, headers, body = self.answer
        route.fulfill(status=status, headers={"content-type": "application/problem+json", **headers}, body=body)


@pytest.fixture
def form(desk: Desk) -> Iterator[Form]:
    page, _ = desk.page()
    form = Form(page)
    page.route("**/*", form.serve)
    yield form


LATER = {"retry-after": "290"}
SOON = {"retry-after": "30"}

SAID = [
    ((202, {}, "{}"), "谢谢您！我们已收到您的信息，会通过邮件与您联系。", "Thank you! We have your message and will"),
    (None, "无法连接到服务器。您填写的内容仍保留在这里，请重试。", "We could not reach the server. What you typed"),
    (
        (429, LATER, '{"detail": "请稍等。"}'),
        "请稍等。您填写的内容仍保留在这里，请在大约 5 分钟后再试。",
        "请稍等。 What you typed is still here; please try again in about 5 minutes.",
    ),
    (
        (503, SOON, "{}"),
        "我们这边出了点问题。您填写的内容仍保留在这里，请稍后再试。",
        "Something went wrong on our side. What you typed is still here; please try again in a moment.",
    ),
    ((422, {}, "{}"), "请检查您填写的内容。", "Please check what you typed."),
    (
        (500, {}, "{}"),
        "我们这边出了点问题。您填写的内容仍保留在这里，请重试。",
        "Something went wrong on our side. What you typed is still here; please try again.",
    ),
]


@pytest.mark.parametrize("lang", ["zh-CN", "zh", "ZH-hans-SG"])
def test_chinese(form: Form, lang: str) -> None:
    form.open(lang)
    for answer, said, _ in SAID if lang == "zh-CN" else SAID[:1]:
        expect(form.send(answer)).to_have_text(said)
    assert {asked.lower() for asked in form.asked} == {lang.lower()}


# No language, one that there are no words in, another script, and what is no tag.
@pytest.mark.parametrize(
    ("lang", "asked"), [("en", "en"), ("", ""), ("fr", "fr"), ("zh-TW", "zh-TW"), ("\u65e5\u672c ", "")]
)
def test_english(form: Form, lang: str, asked: str) -> None:
    form.open(lang)
    for answer, _, said in SAID if lang == "en" else SAID[:1]:
        expect(form.send(answer)).to_contain_text(said)
    assert set(form.asked) == {asked}  # empty: what the browser is set to
