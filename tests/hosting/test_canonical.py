import unicodedata
from urllib.parse import unquote_to_bytes, urljoin

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.hosting.paths import canonical

# Texts that are nearly paths: pieces that matter, between characters of every kind.
PIECES = "/ // . .. %2e %2E%2e %2f %5c \\ %00 % %25 %252e a B : * é e\u0301 %C3%A9 %e9 %c0%ae %ed%a0%80 ? # ; \ud800"
NEARLY = st.lists(st.sampled_from(PIECES.split()) | st.text(max_size=3), max_size=12).map("".join)


@pytest.mark.parametrize("path", ["/", "/a", "/a/", "/a/b.html", "/.well-known/x", "/...", "/..a", "/a..", "/a.b/c~d"])
def test_plain_path_stays(path: str) -> None:
    assert canonical(path) == path


def test_characters_of_a_path_stay_raw() -> None:
    assert canonical("/!$&'()*+,;=:@-._~") == "/!$&'()*+,;=:@-._~"


@pytest.mark.parametrize(
    ("path", "spelled"),
    [
        ("/%61%2D%7e", "/a-~"),
        ("/%3a%2A%40", "/:*@"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/café", "/caf%C3%A9"),
        ("/cafe\u0301", "/caf%C3%A9"),
        ("/cafe%CC%81", "/caf%C3%A9"),
        ("/a b", "/a%20b"),
        ("/a?b#c", "/a%3Fb%23c"),
        ("/100%25", "/100%25"),
        ("/%252e%252e/x", "/%252e%252e/x"),
        ("/[x]", "/%5Bx%5D"),
    ],
)
def test_other_spellings_become_one(path: str, spelled: str) -> None:
    assert canonical(path) == spelled


def test_case_matters() -> None:
    assert canonical("/A") != canonical("/a")


@pytest.mark.parametrize(
    "path",
    [
        "/..",
        "/../x",
        "/a/..",
        "/./a",
        "/.",
        "/%2e%2e/x",
        "/%2E./x",
        "/a/.%2e",
        "/a%2fb",
        "/..%2fx",
        "/a%2Fb",
        "/a\\b",
        "/..%5cx",
        "/%5Cevil.example",
        "//evil.example",
        "/a//b",
        "/a//",
        "/%00",
        "/a%0d%0ab",
        "/\t",
        "/%7f",
        "/%C2%85",
        "/%",
        "/%4",
        "/%zz",
        "/%u0041",
        "/%e9",
        "/%c0%ae%c0%ae/x",
        "/%ed%a0%80",
        "/\ud800",
        "/%f4%90%80%80",
    ],
)
def test_what_could_be_read_in_two_ways_is_no_path(path: str) -> None:
    assert canonical(path) is None


@given(NEARLY)
@example("/e\u0301")
@example("/\u212b%CC%81")
def test_the_spelling_of_a_spelling_is_itself(path: str) -> None:
    spelled = canonical(path)
    if spelled is not None:
        assert canonical(spelled) == spelled
        assert spelled.isascii() and spelled.isprintable()


@given(NEARLY.map("/".__add__))
def test_no_path_leads_up(path: str) -> None:
    spelled = canonical(path)
    if spelled is not None:
        plain = unquote_to_bytes(spelled).decode()
        assert ".." not in plain.replace("\\", "/").split("/")
        assert plain.count("/") == spelled.count("/")
        # Not http: there urljoin drops a ";" at the end.
        assert urljoin("file://h/x/y", spelled) == "file://h" + spelled
        assert plain == unicodedata.normalize("NFC", plain)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_raise_nothing(data: bytes) -> None:
    canonical("/" + data.decode("latin-1"))


@given(st.text(st.characters(), max_size=100))
def test_text_of_any_kind_raises_nothing(text: str) -> None:
    canonical(text)


def test_long_path_takes_no_time() -> None:
    assert canonical("/%2e%2e" * 100_000) is None
    assert canonical("/a" * 100_000) == "/a" * 100_000
