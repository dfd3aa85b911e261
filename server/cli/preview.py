"""`mail preview`: what a site's mails look like, as files to open and as pictures."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from server import form, signup, site
from server.cli import chromium, environment
from server.mail.templates import KINDS
from server.signing import Keys
from server.site import SiteError

WIDTHS = (320, 640)
_OUT = Path("mail-preview")


def preview(
    slug: Annotated[str, typer.Argument(metavar="SITE", help="The site's folder name.")],
    kind: Annotated[str, typer.Argument(metavar="TEMPLATE", help=f"One of {', '.join(KINDS)}; or all.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = _OUT,
) -> None:
    """Writes a mail of SITE with sample data: HTML, text, and pictures of it where Chromium is installed."""
    kinds = KINDS if kind == "all" else (kind,)
    if unknown := set(kinds) - set(KINDS):
        raise environment.fail(f"There is no template {unknown.pop()}.", [f"the templates: {', '.join(KINDS)}"])
    settings = environment.settings()
    keys = Keys(["preview"])
    try:
        reception = signup.reception(
            site.load(settings.sites_dir / slug),
            base_url=settings.base_url,
            mail_from=settings.mail_from or "Preview <preview@localhost>",
            keys=keys,
        )
    except SiteError as error:
        raise environment.fail("This site is not in order:", error.problems) from None
    values = _values(reception)
    try:
        out.mkdir(parents=True, exist_ok=True)
        pages = [_write(reception, one, values, out) for one in kinds]
        _pictures(pages)
    except OSError as error:
        raise environment.fail("The preview cannot be written:", [str(error)]) from None


def _values(reception: signup.Reception) -> Mapping[str, object]:
    """What all kinds of mails may use, made of what somebody might send."""
    keys, one = reception.keys, reception.site
    samples = [form.sample(one, reception.form, full) for full in (True, False)]
    entries = [
        signup.entry(one, {"email": said.email, "name": said.name, "fields": said.answers}, time.time())
        for said in samples
    ]
    return {
        **signup.digest_sample(one, reception.about, entries),
        **entries[0],
        "confirm_url": f"{reception.base}/confirm/{signup.confirm_token(keys, '0' * 29)}",
        "unsubscribe_url": f"{reception.base}/unsubscribe/{signup.unsubscribe_token(keys, one.slug, '0' * 64)}",
        "days": 7,
    }


def _write(reception: signup.Reception, kind: str, values: Mapping[str, object], out: Path) -> Path:
    content = reception.templates.render(kind, values)
    page, text = out / f"{kind}.html", out / f"{kind}.txt"
    page.write_text(content.html, "utf-8")
    text.write_text(f"Subject: {content.subject}\n\n{content.text}", "utf-8")
    for file in (page, text):
        typer.echo(file)
    return page


def _pictures(pages: list[Path]) -> None:
    if (path := chromium.find()) is None:
        typer.echo("No pictures: Chromium is not installed.")
        return
    try:
        with chromium.running(path) as browser:
            for page in pages:
                for width in WIDTHS:
                    for scheme in ("light", "dark"):
                        file = page.with_name(f"{page.stem}-{width}-{scheme}.png")
                        file.write_bytes(browser.picture(page, width, dark=scheme == "dark"))
                        typer.echo(file)
    except chromium.ChromiumFailed as failure:
        raise environment.fail("No pictures: Chromium did not do it.", [str(failure)]) from None
