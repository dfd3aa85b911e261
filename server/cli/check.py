"""`check`: is everything that the operator wrote in order?"""

import typer

from server.app import load_sites
from server.cli import environment
from server.site import Site, SiteError


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
        typer.echo(f"    notice to        {', '.join(site.mail.notify) or 'nobody (mail.notify is empty)'}")
        for note in _notes(site):
            typer.echo(f"    note: {note}")
    if not sites.receptions:
        typer.echo(f"No sites in {settings.sites_dir}: add a folder with a site.toml and public/index.html.")
    typer.secho("Everything is in order.", fg=typer.colors.GREEN)


def _notes(site: Site) -> list[str]:
    """What site.toml asks for that this version does not do yet."""
    later = {
        "signup.allowed_origins": site.signup.allowed_origins,
        "signup.next": site.signup.next,
        "signup.proof_of_work": site.signup.proof_of_work,
    }
    notes = [f"{key} is set but not yet in effect" for key, given in later.items() if given]
    if site.signup.double_opt_in:
        notes.append("double_opt_in is on but not yet in effect: welcome and notice are sent at once")
    return notes
