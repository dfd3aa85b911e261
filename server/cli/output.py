"""Where a command writes what it was asked for: standard output, or a file that is whole or not there."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from server.cli import environment

Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", dir_okay=False, help="In place of standard output.")]


@contextmanager
def written(out: Path | None) -> Iterator[BinaryIO]:
    """The file, made for its owner alone, in place only when all is written. Exits with status 1 where it cannot be."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = out.with_name(f"{out.name}.part")
    try:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
        part.replace(out)
    except OSError as error:
        raise environment.fail(f"{out}: cannot be written: {error.strerror}", []) from None
    finally:
        part.unlink(missing_ok=True)
