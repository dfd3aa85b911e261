"""Templates: escaped, strict, overridable; and a broken one is found by name and line, or does no harm."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from server.mail.templates import KINDS, TemplateProblem, Templates

SITE = {"title": "Bike Shed", "locale": "en", "url": "https://bikes.example/", "accent": "#123456"}
VALUES: dict[str, Any] = {
    "site": SITE,
    "email": "visitor@there.example",
    "name": "A Visitor",
    "fields": [{"name": "colour", "label": "Colour", "value": "Red"}, {"name": "more", "label": "More", "value": None}],
    "received": "2026-01-31 12:00 UTC",
    "confirm_url": "https://bikes.example/confirm/C0nfirm",
    "unsubscribe_url": "https://bikes.example/unsubscribe/Unsubscr1be",
    "days": 7,
    "more": 3,
}
VALUES["entries"] = [{name: VALUES[name] for name in ("email", "name", "fields", "received")}] * 2
VALUES |= {
    "since": "2026-01-30 12:00 UTC",
    "counts": [{"status": "confirmed", "label": "1", "count": 2}],
    "failures": [
        {"kind": "welcome", "what": "2", "recipient": "late@there.example", "reply": "550 5.1.1 - " * 20, "when": "UTC"}
    ],
    "more_failures": 4,
}
LANGUAGES = ["en", "zh-CN"]


def own(folder: Path, **files: str) -> Templates:
    """The templates of a site; `welcome_txt` stands for `welcome.txt`."""
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return Templates(folder)


@pytest.mark.parametrize("locale", LANGUAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_built_in_kind_is_complete(kind: str, locale: str) -> None:
    templates, values = Templates(locale=locale), VALUES | {"site": SITE | {"locale": locale}}
    templates.check(kind, values)
    content = templates.render(kind, values)
    assert "Bike Shed" in content.subject and "Bike Shed" in content.text and "Bike Shed" in content.html
    assert "\n" not in content.subject
    assert f'<html lang="{locale}">' in content.html
    assert all(len(line) <= 72 or "://" in line for line in content.text.splitlines())
    assert not re.search(r"<[a-z/]|&[a-z]+;|\n\n\n\n|[{%]", content.text)


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_all_chinese_for_a_chinese_site(kind: str) -> None:
    content = Templates(locale="zh-CN").render(kind, VALUES | {"site": SITE | {"title": "单车棚"}})
    words = re.sub(r"https?://\S+|\S+@\S+", "", content.subject + content.text)
    assert set(re.findall("[A-Za-z]{2,}", words)) <= {"Visitor", "Colour", "Red", "More", "UTC"}


@pytest.mark.parametrize("kind", ["confirm", "already", "welcome"])
def test_visitor_can_unsubscribe_in_both_parts(kind: str) -> None:
    content = Templates().render(kind, VALUES)
    assert f'href="{VALUES["unsubscribe_url"]}"' in content.html
    assert f"\n{VALUES['unsubscribe_url']}\n" in content.text + "\n"  # on a line of its own


def test_mail_that_asks_to_confirm_has_one_button_and_the_days_and_nothing_of_the_visitor() -> None:
    content = Templates().render("confirm", VALUES)
    assert content.html.count(VALUES["confirm_url"]) == content.text.count(VALUES["confirm_url"]) == 1
    for part in (content.subject, content.text, content.html):
        assert not any(typed in part for typed in ("A Visitor", "visitor@there", "Red"))
    assert "7 days" in content.text and "7 days" in content.html


def test_digest_shows_everything_of_each_and_says_that_nothing_is_proven() -> None:
    content = Templates().render("digest", VALUES)
    for part in (content.text, content.html):
        assert part.count("visitor@there.example") == part.count("Red") == 2
        assert part.count("Not confirmed") == 2 and "not proven" in part and "3 more are not shown" in part
    one = Templates().render("digest", VALUES | {"more": 1, "more_failures": 0})
    assert "One more is not shown" in one.text
    assert "not shown" not in Templates().render("digest", VALUES | {"more": 0, "more_failures": 0}).text


@pytest.mark.parametrize(
    ("without", "subject", "left", "gone"),
    [
        ("entries", "Mails that failed: Bike Shed", "late@there.example", "not confirmed"),
        ("failures", "Signups not confirmed: Bike Shed", "visitor@there.example", "failed"),
        ("counts", "Mails that failed, signups not confirmed: Bike Shed", "late@there.example", "New signups since"),
    ],
)
def test_digest_says_nothing_of_what_there_is_not(without: str, subject: str, left: str, gone: str) -> None:
    content = Templates().render("digest", VALUES | {without: []})
    assert content.subject == subject
    for part in (content.text, content.html[content.html.index("<body") :]):
        assert left in part and gone not in part


# -- styles ------------------------------------------------------------------------------------------------------------


def test_styles_stand_in_the_tags_and_what_cannot_stays_in_the_style_sheet() -> None:
    html = Templates().render("welcome", VALUES).html
    assert re.search(r'<div class="card" style="[^"]*max-width: 560px', html)
    sheet = html[html.index("<style>") : html.index("</style>")]
    assert "prefers-color-scheme: dark" in sheet and "max-width: 480px" in sheet and "max-width: 560px" not in sheet


@pytest.mark.parametrize(("accent", "text"), [("#123456", "#ffffff"), ("#ffc14d", "#000000")])
def test_text_on_the_button_can_be_read(accent: str, text: str) -> None:
    html = Templates().render("welcome", {**VALUES, "site": SITE | {"accent": accent}}).html
    assert re.search(rf'<td class="button" style="[^"]*background: {accent}', html)
    assert re.search(rf'<a href="https://bikes.example/" style="[^"]*;color: {text}', html)


def test_styles_do_not_change_what_a_visitor_wrote() -> None:
    evil = "</dd><style>.card { display: none }</style>&nbsp;&amp; \u00a0\n  two"
    html = Templates().render("notice", VALUES | {"name": evil}).html
    assert unescape(evil) not in html and html.count("<style") == 1
    shown = re.search(r"Name</dt>\s*<dd[^>]*>(.*?)</dd>", html, re.DOTALL)
    assert shown and unescape(shown[1]) == evil


def test_no_style_sheet_is_fetched(tmp_path: Path) -> None:
    page = '<link rel="stylesheet" href="http://127.0.0.1:9/x.css"><style>p { color: red }</style><p>x</p>'
    assert 'style="color: red;"' in own(tmp_path, welcome_html=page).render("welcome", VALUES).html


def test_mail_that_gmail_would_cut_off_is_a_problem(tmp_path: Path) -> None:
    templates = own(tmp_path, welcome_html="{{ 'x' * 102 * 1024 }}")
    templates.check("welcome", VALUES)
    (tmp_path / "welcome.html").write_text("{{ 'x' * 102 * 1024 }}x")
    with pytest.raises(TemplateProblem, match=r"welcome.html: makes 102 KB of HTML; Gmail"):
        Templates(tmp_path).check("welcome", VALUES)


# -- escaping and overrides --------------------------------------------------------------------------------------------


def test_html_is_escaped_and_text_is_not() -> None:
    evil = "<img src=x onerror=alert(1)> & {{ 7 * 7 }}"
    content = Templates().render("notice", VALUES | {"name": evil})
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; {{ 7 * 7 }}" in content.html and "<img" not in content.html
    assert evil in content.text


def test_own_html_is_escaped_too(tmp_path: Path) -> None:
    templates = own(tmp_path, welcome_html="<p>{{ site.title }}</p>", welcome_subject_txt="{{ site.title }}")
    content = templates.render("welcome", VALUES | {"site": SITE | {"title": "Tom & <b>"}})
    assert content.html == "<p>Tom &amp; &lt;b&gt;</p>"
    assert content.subject == "Tom & <b>"


def test_text_of_users_is_never_a_template() -> None:
    content = Templates().render("notice", VALUES | {"name": "{{ site.__class__ }}{% if %}"})
    assert "{{ site.__class__ }}{% if %}" in content.text


def test_own_file_takes_the_place_of_the_built_in_one_alone(tmp_path: Path) -> None:
    content = own(tmp_path, welcome_txt="Ours: {{ site.title }}").render("welcome", VALUES)
    assert content.text == "Ours: Bike Shed"
    assert content.html == Templates().render("welcome", VALUES).html


def test_own_base_dresses_built_in_mails(tmp_path: Path) -> None:
    templates = own(tmp_path, base_html="<main>{% block body %}{% endblock %}</main>")
    assert templates.render("welcome", VALUES).html.startswith("<main>")


def test_own_file_can_build_on_the_base(tmp_path: Path) -> None:
    templates = own(tmp_path, welcome_html='{% extends "base.html" %}{% block body %}Ours{% endblock %}')
    assert "Ours" in templates.render("welcome", VALUES).html


def test_folder_that_is_not_there_means_the_built_in_ones(tmp_path: Path) -> None:
    assert Templates(tmp_path / "none").render("welcome", VALUES) == Templates().render("welcome", VALUES)


def test_subject_is_one_line(tmp_path: Path) -> None:
    templates = own(tmp_path, welcome_subject_txt="  Hello\r\nBcc: e@x.y\n\n{{ site.title }} ")
    assert templates.render("welcome", VALUES).subject == "Hello Bcc: e@x.y Bike Shed"


BROKEN = [
    ("welcome.txt", "fine\n{{ unknown }}", 2, "'unknown' is undefined"),
    ("welcome.txt", "{{ site.nothing }}", 1, "nothing"),
    ("welcome.html", "one\ntwo\n{% if %}", 3, "Expected an expression"),
    ("welcome.html", "\n{% for x in 5 %}{% endfor %}", 2, "not iterable"),
    ("welcome.html", "\n\n{{ 1 / 0 }}", 3, "division"),
    ("welcome.html", '{% extends "gone.html" %}', None, "gone.html"),
    ("welcome.subject.txt", "\n{{ oops }}", 2, "'oops'"),
    ("welcome.subject.txt", " \n ", None, "nothing"),
    ("base.html", "\n{{ oops }}{% block body %}{% endblock %}", 2, "'oops'"),
]


@pytest.mark.parametrize(("name", "text", "line", "why"), BROKEN)
def test_broken_own_template_is_named_with_its_line(
    tmp_path: Path, name: str, text: str, line: int | None, why: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TemplateProblem) as caught:
        Templates(tmp_path).check("welcome", VALUES)
    place = tmp_path / ("welcome.html" if "extends" in text else name)
    assert str(caught.value).startswith(f"{place}:{line}: " if line else str(place))
    assert why in str(caught.value)


@pytest.mark.parametrize("name", ["welcome.txt", "welcome.html", "base.html"])
def test_own_template_that_is_not_utf8_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(TemplateProblem, match="utf-8") as caught:
        Templates(tmp_path).check("welcome", VALUES)
    assert str(tmp_path) in str(caught.value)


def test_own_template_that_fails_on_real_data_gives_way_to_the_built_in_one(tmp_path: Path) -> None:
    templates = own(tmp_path, notice_txt="{{ name.upper() }}")
    templates.check("notice", VALUES)
    without = VALUES | {"name": None}
    with pytest.raises(TemplateProblem):
        templates.check("notice", without)
    assert templates.render("notice", without) == Templates().render("notice", without)


def test_broken_template_says_why_without_what_the_visitor_wrote(tmp_path: Path) -> None:
    templates = own(tmp_path, notice_txt="{{ fields.nothing }}")
    with pytest.raises(TemplateProblem) as caught:
        templates.check("notice", VALUES | {"email": "somebody@private.example"})
    assert "somebody" not in str(caught.value)


def test_unknown_kind_is_a_problem() -> None:
    with pytest.raises(TemplateProblem, match="nonsense"):
        Templates().check("nonsense", VALUES)


def test_misspelt_template_is_a_stranger(tmp_path: Path) -> None:
    for name in ("welcom.html", "welcome.txt", "_part.html", ".hidden"):
        (tmp_path / name).write_text("x")
    assert Templates(tmp_path).strangers() == [tmp_path / "welcom.html"]
    assert Templates(tmp_path / "none").strangers() == []


def test_template_that_was_changed_is_compiled_anew(tmp_path: Path) -> None:
    for text in ("one", "two", "two", "three"):
        (tmp_path / "welcome.txt").write_text(text)
        templates = Templates(tmp_path)
        assert templates.render("welcome", VALUES).text.strip() == text
