import pytest

from server.web.negotiation import prefers_html, prefers_json


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "APPLICATION/JSON",
        "application/json, text/plain, */*",
        "application/json, text/javascript, */*; q=0.01",
        "text/html;q=0.9, application/json",
        "text/html;q=0, */*",
        "application/*, text/*;q=0.1",
        "application/json ; q=0.002,text/html;q=0.001",
    ],
)
def test_json_is_preferred(accept: str) -> None:
    assert (prefers_json(accept), prefers_html(accept)) == (True, False)


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "text/html, application/json;q=0.9",
        "text/*",
        "application/json;q=0, */*;q=0.1",
    ],
)
def test_html_is_preferred(accept: str) -> None:
    assert (prefers_json(accept), prefers_html(accept)) == (False, True)


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "image/png", "application/json, text/html", "application/json;q=0", "text/html;q=none", ",;q=,/", "*"],
)
def test_nothing_is_preferred(accept: str) -> None:
    assert (prefers_json(accept), prefers_html(accept)) == (False, False)
