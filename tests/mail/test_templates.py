"""Templates: escaped, strict, overridable; and a broken one is found by name and line, or does no harm."""

from pathlib import Path
from typing import Any

import pytest

from server.mail.templates import BUILT_IN, TemplateProblem, Templates

SITE = {"title": "Bike Shed", "locale": "en", "url": "https://bikes.example/", "accent": "#123456"}
VALUES: dict[str, Any] = {
    "site": SITE,
    "email": "visitor@there.example",
    "name": "A Visitor",
    "fields": [{"name": "colour", "label": "Colour", "value": "Red"}, {"name": "more", "label": "More", "value": None}],
    "received": "2026-01-31 12:00 UTC",
}


def own(folder: Path, **files: str) -> Templates:
    """The templates of a site; `welcome_txt` stands for `welcome.txt`."""
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return Templates(folder)


@pytest.mark.parametrize("kind", sorted({file.name.partition(".")[0] for file in BUILT_IN.iterdir()} - {"base"}))
def test_built_in_kind_is_complete(kind: str) -> None:
    Templates().check(kind, VALUES)
    content = Templates().render(kind, VALUES)
    assert "Bike Shed" in content.subject and "Bike Shed" in content.text and "Bike Shed" in content.html
    assert "\n" not in content.subject


def test_html_is_escaped_and_text_is_not() -> None:
    evil = "<img src=x onerror=alert(1)> & {{ 7 * 7 }}"
    content = Templates().render("notice", VALUES | {"name": evil})
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; {{ 7 * 7 }}" in content.html and "<img" not in content.html
    assert evil in content.text


def test_own_html_is_escaped_too(tmp_path: Path) -> None:
    templates = own(tmp_path, welcome_html="<p>{{ site.title }}</p>", welcome_subject_txt="{{ site.title }}")
    content = templates.render("welcome", {"site": SITE | {"title": "Tom & <b>"}})
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
