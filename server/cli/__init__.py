"""The command line: each command a thin shell over what lies below."""

import sys

import typer

from server.cli import (
    backup,
    check,
    export,
    imports,
    mail,
    migrate,
    move,
    outbox,
    people,
    preview,
    serve,
    signups,
    worker,
)

app = typer.Typer(
    name="doorbell",
    help="Hosts static sites and takes their signups; mail that is never lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("worker")(worker.worker)
app.command("beat")(worker.beat)
app.command("check")(check.check)
app.command("migrate")(migrate.migrate)
app.command("move")(move.move)
app.add_typer(mail.app, name="mail")
mail.app.command("preview")(preview.preview)
mail.app.command("list")(outbox.list_mails)
mail.app.command("show")(outbox.show)
mail.app.command("retry")(outbox.retry)
mail.app.command("cancel")(outbox.cancel)
mail.app.command("purge")(outbox.purge)
app.add_typer(signups.app, name="signups")
app.add_typer(people.app, name="people")
app.command("export")(export.export)
app.command("import")(imports.import_)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)


def main() -> None:
    """Runs the command that the arguments name."""
    sys.exit(app())
