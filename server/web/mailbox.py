"""/_mailbox/: the mails of the built-in mailbox, in a browser."""

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from server.i18n import Text
from server.mail.mailbox import Caught, Mailbox
from server.web.depends import Operator, Running
from server.web.pages import page
from server.web.problems import Problem

router = APIRouter(prefix="/_mailbox", dependencies=[Operator], include_in_schema=False)

_READ = ["GET", "HEAD"]

PAGE_SIZE = 50
# A mail's HTML is shown as a stranger's: no script, no forms, no origin, nothing fetched.
_SANDBOX = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox allow-popups allow-popups-to-escape-sandbox"
)


def _open(runtime: Running) -> Mailbox:
    if runtime.mailbox is None:
        raise Problem(404, Text("Mail goes to a relay (DOORBELL_SMTP_URL): there is no built-in mailbox."))
    return runtime.mailbox


async def _mail(runtime: Running, key: str) -> Caught:
    if (mail := await _open(runtime).get(key)) is None:
        raise Problem(404, Text("There is no such mail."))
    return mail


@router.api_route("", methods=_READ)
async def folder() -> Response:
    """The same with its slash; relative, so that it names no host."""
    return Response(status_code=308, headers={"location": "./_mailbox/"})


@router.api_route("/", methods=_READ)
async def index(request: Request, runtime: Running) -> Response:
    """What was caught, newest first."""
    wanted = request.query_params.get("page", "1")
    number = max(int(wanted), 1) if wanted.isascii() and wanted.isdigit() and len(wanted) < 8 else 1
    total, mails = await _open(runtime).newest(PAGE_SIZE, (number - 1) * PAGE_SIZE)
    pages = max(-(-total // PAGE_SIZE), 1)
    return page(request, "mailbox.html", {"mails": mails, "total": total, "number": number, "pages": pages})


@router.api_route("/{key}", methods=_READ)
async def show(request: Request, key: str, runtime: Running) -> Response:
    """One mail: its headers, the HTML in a sandboxed frame, the text, the source."""
    return page(request, "mail.html", {"mail": await _mail(runtime, key)})


@router.api_route("/{key}/html", methods=_READ)
async def html(key: str, runtime: Running) -> Response:
    """The HTML part alone, for the frame."""
    mail = await _mail(runtime, key)
    if mail.html is None:
        raise Problem(404, Text("This mail has no HTML part."))
    body = mail.html.encode("utf-8", "replace")
    return HTMLResponse(body, headers={"content-security-policy": _SANDBOX, "cache-control": "no-store"})


@router.api_route("/{key}/source", methods=_READ)
async def source(key: str, runtime: Running) -> Response:
    """The mail as it came over the wire."""
    mail = await _mail(runtime, key)
    return PlainTextResponse(mail.source, headers={"cache-control": "no-store"})
