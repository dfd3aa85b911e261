"""The signup as a plain FastAPI endpoint, with Doorbell's model, validation and middleware, but without its outbox.

`python -m bench.servers.signups PORT SITES` stores nothing. With a FILE it writes signup and mail into SQLite, a
transaction a request; with `library` behind it, the mail is built by the standard library.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from pydantic import Field, create_model
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from starlette.middleware import Middleware
from starlette.responses import JSONResponse

from bench import letter, outbox
from bench.servers import arguments, serve
from server import log, signup, site
from server.app import BODY_LIMIT
from server.form import Form
from server.mail.message import Message
from server.signing import Keys
from server.signup import Reception
from server.web.middleware import BodyLimit, RequestId, SecurityHeaders, Timing, Unexpected

Keep = Callable[[Form], Awaitable[None]]


def application(reception: Reception, keep: Keep | None, file: Path | None) -> FastAPI:
    """The endpoint. `keep` is what it does with a signup; `file` is made into a database first."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if file is not None:
            async with outbox.database(file):
                pass  # the tables are there now
        yield

    stack = [Timing, RequestId, BodyLimit, SecurityHeaders, Unexpected]
    middleware = [Middleware(one, **({"limit": BODY_LIMIT} if one is BodyLimit else {})) for one in stack]  # type: ignore[arg-type]
    app = FastAPI(lifespan=lifespan, middleware=middleware)
    model: Any = create_model("Signup", __base__=reception.form, site=(str, Field(exclude=True)))

    @app.post("/signup", status_code=202)
    async def take(form: model) -> JSONResponse:
        if keep is not None:
            await keep(cast(Form, form))
        return JSONResponse({"status": "accepted"}, 202)

    return app


def keeping(reception: Reception, file: Path, write: Callable[[Reception, Form], Message]) -> Keep:
    """A durable transaction for each signup."""
    engine = _engine(file)

    async def keep(form: Form) -> None:
        message = write(reception, form)
        async with engine.begin() as connection:
            await connection.run_sync(outbox.keep, reception, form, message)

    return keep


def _engine(file: Path) -> AsyncEngine:
    # One connection: with more, writers meet in SQLite, which polls for its lock; this is the faster way.
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", pool_size=1, max_overflow=0)

    @event.listens_for(engine.sync_engine, "connect")
    def _durable(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def library(reception: Reception, form: Form) -> Message:
    """A mail as most write one: EmailMessage."""
    made = EmailMessage(SMTP)
    made["From"] = reception.sender
    made["To"] = form.email
    made["Subject"] = letter.SUBJECT
    made["Date"] = formatdate()
    made["Message-ID"] = identity = make_msgid(domain=letter.DOMAIN)
    made.set_content(letter.TEXT)
    made.add_alternative(letter.HTML, subtype="html")
    return Message(letter.ADDRESS, form.email, identity, made.as_bytes())


def _main() -> None:
    log.configure(level="warning")
    port, sites = arguments()
    found, problems = site.load_all(sites)
    if problems:
        raise SystemExit(problems)
    base, keys = f"http://localhost:{port}", Keys(["that of a bench"])
    reception = signup.reception(found["bench"], base_url=base, mail_from=None, keys=keys)
    file = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    write = library if "library" in sys.argv else outbox.welcome
    keep = None if file is None else keeping(reception, file, write)
    serve(application(reception, keep, file), port, lifespan="on")


if __name__ == "__main__":
    _main()
