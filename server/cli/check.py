"""`check`: is everything that the operator wrote in order?"""

import typer

from server.app import load_sites
from server.cli import environment
from server.signup import Reception
from server.site import SiteError


def check() -> None:
    """Validates every setting, site and mail template. Exits with 1 and a list of what is wrong."""
    settings = environment.settings()
    try:
        sites = load_sites(settings)
    except SiteError as error:
        raise environment.fail("These sites are not in order:", error.problems) from None
    for slug, reception in sites.receptions.items():
        site = reception.site
        fields = ", ".join(site.signup.fields) or "none of its own"
        typer.echo(f"/{slug}/  {site.title}")
        typer.echo(f"    pages and files  {sites.published.files[slug]}")
        for host in site.hosts:
            typer.echo(f"    domain           {host}")
        typer.echo(f"    form fields      {fields}")
        typer.echo(f"    mail from        {reception.sender}")
        typer.echo(f"    asks to confirm  {'yes' if site.signup.double_opt_in else 'no (double_opt_in = false)'}")
        typer.echo(f"    notice to        {', '.join(site.mail.notify) or 'nobody (mail.notify is empty)'}")
        for note in _notes(reception):
            typer.echo(f"    note: {note}")
    if not sites.receptions:
        typer.echo(f"No sites in {settings.sites_dir}: add a folder with a site.toml and public/index.html.")
    typer.secho("Everything is in order.", fg=typer.colors.GREEN)


def _notes(reception: Reception) -> list[str]:
    """What is in order and may still surprise."""
    site, notes = reception.site, []
    if not reception.base.startswith("https://"):
        notes.append(
            f"links in its mails begin with {reception.base} (DOORBELL_BASE_URL): that reaches nobody elsewhere, or not"
            " safely; unsubscribing with one click needs https (RFC 8058)"
        )
    if not site.mail.notify:
        notes.append("nobody is told of a signup: see `python -m server signups list`, or set mail.notify")
    return notes
