"""/_mailbox/: what was caught can be read, and nothing in a mail can do anything."""

import mailbox
import re
from html import unescape

import httpx
import pytest

from server.app import create_app
from server.settings import Settings, load
from tests.conftest import eventually, running

EVIL = b"""From: "<script>alert('from')</script>" <a@example.com>\r
To: b@example.com\r
Subject: =?utf-8?q?=3Cscript=3Ealert=281=29=3C/script=3E?=\r
MIME-Version: 1.0\r
Content-Type: multipart/alternative; boundary=x\r
\r
--x\r
Content-Type: text/plain; charset=utf-8\r
\r
<script>alert('text')</script></pre>\r
--x\r
Content-Type: text/html; charset=utf-8\r
\r
<script>alert('html')</script><img src="https://tracker.example/x.png"><form action="/signup"></form>\r
--x--\r
"""


def drop(settings: Settings, data: bytes) -> str:
    """Puts a mail into the mailbox, as another process could, and answers its key."""
    return str(mailbox.Maildir(settings.data_dir / "mailbox").add(data))


async def keys(client: httpx.AsyncClient) -> list[str]:
    return [unescape(key) for key in re.findall(r'href="/_mailbox/([^"]+)"', (await client.get("/_mailbox/")).text)]


async def test_empty(client: httpx.AsyncClient) -> None:
    answer = await client.get("/_mailbox/")
    assert (answer.status_code, "0 mails" in answer.text) == (200, True)


async def test_slash_is_added_relatively(client: httpx.AsyncClient) -> None:
    answer = await client.get("/_mailbox")
    assert (answer.status_code, answer.headers["location"]) == (308, "./_mailbox/")


async def test_mails_of_a_signup_can_be_read(client: httpx.AsyncClient) -> None:
    form = {"site": "bikes", "email": "a@example.com", "colour": "Red", "message": "Grüße & <b>"}
    await client.post("/signup", json=form)

    async def both() -> bool:
        return len(await keys(client)) == 2

    await eventually(both)
    pages = [(await client.get(f"/_mailbox/{key}")).text for key in await keys(client)]
    (notice,) = [page for page in pages if "<dd>owner@bikeshed.example</dd>" in page]
    (welcome,) = [page for page in pages if "<dd>a@example.com</dd>" in page]
    assert "Grüße &amp; &lt;b&gt;" in notice and "Grüße" not in welcome
    assert "Bike Shed" in welcome


async def test_newest_first_and_a_page_at_a_time(client: httpx.AsyncClient, settings: Settings) -> None:
    dropped = [drop(settings, b"Subject: %d\r\n\r\n" % number) for number in range(52)]
    assert await keys(client) == dropped[:1:-1]
    second = (await client.get("/_mailbox/?page=2")).text
    assert re.findall(r"<strong>(\d+)</strong>", second) == ["1", "0"]
    assert "Page 2 of 2" in second


@pytest.mark.parametrize("page", ["0", "-1", "x", "99999999999999999999", "٢", "", "1&page=x", "1.5"])
async def test_odd_page_number(client: httpx.AsyncClient, page: str) -> None:
    assert (await client.get(f"/_mailbox/?page={page}")).status_code == 200


# -- nothing in a mail can do anything -----------------------------------------------------------------------------


async def test_script_in_a_mail_is_text_on_our_pages(client: httpx.AsyncClient, settings: Settings) -> None:
    key = drop(settings, EVIL)
    for path in ("/_mailbox/", f"/_mailbox/{key}"):
        answer = await client.get(path)
        assert answer.status_code == 200
        assert "<script" not in answer.text and "&lt;script&gt;alert(1)" in answer.text
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe-inline" not in answer.headers["content-security-policy"]


async def test_html_of_a_mail_is_shown_in_a_sandboxed_frame(client: httpx.AsyncClient, settings: Settings) -> None:
    key = drop(settings, EVIL)
    (frame,) = re.findall(r"<iframe[^>]*>", (await client.get(f"/_mailbox/{key}")).text)
    (sandbox,) = re.findall(r'sandbox="([^"]*)"', frame)
    assert not {"allow-scripts", "allow-same-origin", "allow-forms", "allow-top-navigation"} & set(sandbox.split())
    (source,) = re.findall(r'src="([^"]*)"', frame)
    assert (await client.get(unescape(source))).status_code == 200


async def test_html_of_a_mail_has_a_policy_of_its_own(client: httpx.AsyncClient, settings: Settings) -> None:
    answer = await client.get(f"/_mailbox/{drop(settings, EVIL)}/html")
    assert "<script>alert('html')</script>" in answer.text  # as it is: the policy keeps it from running
    policy = {
        name: values
        for name, *values in (part.split() for part in answer.headers["content-security-policy"].split(";"))
    }
    assert policy["default-src"] == ["'none'"]
    assert policy["img-src"] == ["data:"]
    assert not {"script-src", "form-action", "connect-src"} & policy.keys()
    assert not {"allow-scripts", "allow-same-origin", "allow-forms"} & set(policy["sandbox"])
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_source_is_plain_text(client: httpx.AsyncClient, settings: Settings) -> None:
    answer = await client.get(f"/_mailbox/{drop(settings, EVIL)}/source")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<script>alert('text')</script>" in answer.text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b"\x00\xff\xfe",
        b"Subject: caf\xe9 \xff\r\nFrom: \xff\r\n\r\n\xff\xfe",
        b"Subject: =?utf-8?b?7aCA?=\r\n\r\nlone surrogate",
        b"Subject: =?utf-7?q?+2AA-?=\r\nFrom: =?utf-7?q?+2AA-?= <a@example.com>\r\n\r\nx",
        b"Content-Type: text/html; charset=utf-7\r\n\r\n+2AA-",
        b"Content-Type: text/plain; charset=utf-7\r\n\r\n+2AA-",
        b"Content-Type: text/html; charset=no-such\r\n\r\n\xff",
        b"Content-Type: multipart/mixed\r\n\r\n--x",
        b"From: " + b"a," * 5000 + b"\r\n\r\n",
        b"Subject: " + b"=?utf-8?q?=" * 100 + b"\r\n\r\n",
        b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!!",
    ],
    ids=range(13),
)
async def test_broken_mail_can_be_looked_at(client: httpx.AsyncClient, settings: Settings, data: bytes) -> None:
    key = drop(settings, data)
    assert (await client.get("/_mailbox/")).status_code == 200
    for path in (key, f"{key}/source"):
        assert (await client.get(f"/_mailbox/{path}")).status_code == 200
    assert (await client.get(f"/_mailbox/{key}/html")).status_code in (200, 404)


# -- keys ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "none",
        "%2e%2e",
        "..%2f..%2fdoorbell.db",
        "%2e%2e%2fdoorbell.db",
        "..%5cdoorbell.db",
        "%00",
        "new",
        "%2fetc%2fpasswd",
        "a" * 300,
        "%ff",
        "%f0%9f%90%95",
    ],
)
@pytest.mark.parametrize("more", ["", "/html", "/source"])
async def test_unknown_key(client: httpx.AsyncClient, settings: Settings, key: str, more: str) -> None:
    (settings.data_dir / "mailbox" / "secret").write_text("SECRET")
    answer = await client.get(f"/_mailbox/{key}{more}")
    assert answer.status_code == 404
    assert "SECRET" not in answer.text and "SQLite" not in answer.text


async def test_unknown_key_is_a_problem(client: httpx.AsyncClient) -> None:
    answer = await client.get("/_mailbox/none")
    assert (answer.headers["content-type"], answer.json()["detail"]) == (
        "application/problem+json",
        "There is no such mail.",
    )


async def test_mail_without_html(client: httpx.AsyncClient, settings: Settings) -> None:
    key = drop(settings, b"Subject: plain\r\n\r\ntext\r\n")
    assert "<iframe" not in (await client.get(f"/_mailbox/{key}")).text
    assert (await client.get(f"/_mailbox/{key}/html")).status_code == 404


async def test_folder_in_the_mailbox_is_no_mail(client: httpx.AsyncClient, settings: Settings) -> None:
    (settings.data_dir / "mailbox" / "new" / "folder").mkdir()
    assert (await client.get("/_mailbox/")).status_code == 200
    assert (await client.get("/_mailbox/folder")).status_code == 404


async def test_no_mailbox_where_a_relay_is_configured(environ: dict[str, str]) -> None:
    settings = load({**environ, "DOORBELL_SMTP_URL": "smtp://127.0.0.1:1"}, env_file=None)
    async with running(create_app(settings)) as client:
        for path in ("/_mailbox/", "/_mailbox/x", "/_mailbox/x/html", "/_mailbox/x/source"):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
            assert "DOORBELL_SMTP_URL" in answer.json()["detail"]
