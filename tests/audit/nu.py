"""The Nu HTML checker (vnu), over files. Knows how it is run; knows no sites.

Not over style sheets: it takes `@view-transition`, `vector-effect` and much else of today's CSS for mistakes.
"""

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.audit.conftest import module, program


def complaints(files: Iterable[Path]) -> list[str]:
    """Its errors and warnings, a line each: file, line, text. One run for all, for starting it takes longest."""
    checker = [program("java"), "-jar", str(module("vnu-jar/build/dist/vnu.jar"))]
    options = ["--format", "json", "--stdout", "--exit-zero-always", "--also-check-svg"]
    done = subprocess.run(
        [*checker, *options, *map(str, files)], capture_output=True, text=True, timeout=180, check=True
    )
    return [
        f"{message.get('url', '?')}:{message.get('lastLine', '?')}: {message['message']} {message.get('extract', '')!r}"
        for message in json.loads(done.stdout)["messages"]
    ]
