"""Languages: which one a client gets, what a text is in it, and that every catalogue says all there is to say."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from hypothesis import given, settings
from hypothesis import strategies as st

from server import i18n
from server.i18n import Text, catalogue, extract, match, negotiate

CATALOGUES = sorted(i18n.FOLDER.glob("*.po"))
ENGLISH, CHINESE = "en", "zh-Hans"

POLISH = r"""
msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\n"
"Plural-Forms: nplurals=3; plural=(n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<12 || n%100>14) ? 1 : 2);\n"

msgid "{count} page"
msgid_plural "{count} pages"
msgstr[0] "{count} strona"
msgstr[1] "{count} strony"
msgstr[2] "{count} stron"

msgid "This has {limit}, {reason}"
msgstr "{reason}: {limit}"

msgid "a reason"
msgstr "powód"
"""


@pytest.fixture
def polish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of catalogues with a third language in it."""
    for file in CATALOGUES:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pl.po").write_text(POLISH, "utf-8")
    monkeypatch.setattr(i18n, "FOLDER", tmp_path)
    _forget()
    yield tmp_path
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    for cached in (i18n.available, i18n.match, i18n._read):
        cached.cache_clear()


# -- which one -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh", CHINESE),
        ("zh-CN,zh;q=0.9,en;q=0.8", CHINESE),
        ("ZH-hans-sg", CHINESE),
        ("zh-TW,zh;q=0.9,en-US;q=0.8", CHINESE),  # better than English, says the header
        ("zh-TW,en;q=0.5", ENGLISH),
        ("zh-Hant-CN", "default"),
        ("en-GB,en;q=0.9,zh;q=0.8", ENGLISH),
        ("en;q=0.8, zh;q=0.9", CHINESE),
        ("en ; q=0.800 , zh ; Q=0.8", ENGLISH),  # of equals the first
        ("zh;q=0.5, en;q=0.4, zh-CN;q=0.1", CHINESE),
        ("fr-CH, fr;q=0.9, zh;q=0.1", CHINESE),
        ("zh;q=0, en;q=0.0", "default"),
        ("en;q=0, zh;q=0.001", CHINESE),
        ("fr", "default"),
        ("*", "default"),
        ("", "default"),
        (",;q=1,-,zh_CN,zh;q=2,zh;q=,zh;x=1,../zh,\0", "default"),
        ("xx," * 30 + "zh", "default"),
    ],
)
def test_negotiated(header: str, language: str) -> None:
    for default in (ENGLISH, CHINESE):
        assert negotiate(header, default) == (default if language == "default" else language)


@pytest.mark.parametrize(
    ("default", "language"), [("zh-CN", CHINESE), ("zh-TW", ENGLISH), ("en-GB", ENGLISH), ("fr", ENGLISH)]
)
def test_default_is_what_there_are_texts_in(default: str, language: str) -> None:
    assert negotiate("", default) == language


@given(st.text(st.sampled_from("zhenTWHas-_,;q=0.1* \t\0@é/"), max_size=60))
@settings(max_examples=100, deadline=None)
def test_header_of_any_kind_has_an_answer(header: str) -> None:
    assert negotiate(header, ENGLISH) in i18n.available()


def test_what_strangers_ask_for_is_not_kept_for_ever() -> None:
    assert match.cache_info().maxsize is not None


# -- what it says --------------------------------------------------------------------------------------------------


def test_text_is_english_by_itself() -> None:
    text = Text("This has {limit}, {reason}", limit=3, reason=Text("a reason"))
    assert text == "This has 3, a reason"
    assert text.within(catalogue(ENGLISH)) == text.within(catalogue("fr")) == text


def test_text_is_translated_with_the_texts_in_it(polish: Path) -> None:
    text = Text("This has {limit}, {reason}", limit=3, reason=Text("a reason"))
    assert text.within(catalogue("pl-PL")) == "powód: 3"
    assert Text("a reason", english="a reason, at length").within(catalogue("pl")) == "powód"
    assert Text("a reason", english="a reason, at length") == "a reason, at length"


def test_text_of_a_visitor_is_no_format(polish: Path) -> None:
    text = Text("This has {limit}, {reason}", limit="{reason.__class__} %(limit)s", reason="{limit}")
    assert text.within(catalogue("pl")) == "{limit}: {reason.__class__} %(limit)s"


def test_third_language_needs_only_its_catalogue(polish: Path) -> None:
    assert negotiate("pl-PL,pl;q=0.9", ENGLISH) == "pl"
    assert [catalogue("pl").ngettext("{count} page", "{count} pages", count) for count in (1, 3, 5)] == [
        "{count} strona",
        "{count} strony",
        "{count} stron",
    ]


# -- the catalogues ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found() -> Catalog:
    return extract.template()


@pytest.mark.parametrize("text", ["This field is required.", "Back to the website", "Please check what you typed."])
def test_texts_are_found_in_code_pages_and_script(found: Catalog, text: str) -> None:
    assert text in found


@pytest.mark.parametrize("file", CATALOGUES, ids=lambda file: file.stem)
def test_catalogue_says_all_and_no_more(file: Path, found: Catalog) -> None:
    assert file.read_bytes() == extract.updated(extract.read(file), found), "run `make messages`"
    assert extract.faults(extract.read(file)) == []


@pytest.mark.parametrize(
    ("msgid", "translation", "fault"),
    [
        ("a {b} c", "", "pl: not translated: a {b} c"),
        ("a {b} c", "{b}", None),
        ("a {b} c", "{d}", "pl: other placeholders: a {b} c"),
        ("a %(b)s c", "b", "pl: other placeholders: a %(b)s c"),
        (("{n} a", "{n} as"), ("{n} b", "{n} c", "d"), "pl: other placeholders: {n} a"),
        (("{n} a", "{n} as"), ("{n} b", "{n} c", ""), "pl: not translated: {n} a"),
    ],
)
def test_fault_of_a_catalogue(msgid: str, translation: str, fault: str | None) -> None:
    catalog = Catalog("pl")
    catalog.add(msgid, translation)
    assert extract.faults(catalog) == ([fault] if fault else [])


def test_new_catalogue_is_filled_with_what_there_is_to_translate(tmp_path: Path, found: Catalog) -> None:
    file = tmp_path / "pl.po"
    file.touch()
    file.write_bytes(extract.updated(extract.read(file), found))
    assert file.read_bytes() == extract.updated(extract.read(file), found)
    assert len(extract.faults(extract.read(file))) == len(found)
    assert "nplurals=4" in file.read_text() or "nplurals=3" in file.read_text()
