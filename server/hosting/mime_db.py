"""Makes media_types.json: `python -m server.hosting.mime_db FOLDER`, an unpacked npm package mime-db.

A maintainer's tool; nothing imports it when the server runs. For each extension the type counts that IANA registered,
then Apache's, then nginx's, then others'; of equals the one that lists the extension earlier, then by the alphabet.
Where that is not what browsers and servers say, `CHOSEN` decides.
"""

import json
import sys
from pathlib import Path
from typing import Any

from server.hosting.media_types import TABLE, UNKNOWN, textual

CHOSEN = {
    "3gpp": "video/3gpp",  # sound alone is .3gp's rarer use
    "mp4": "video/mp4",  # application/mp4 is for what is neither film nor sound (RFC 4337)
    "mpg4": "video/mp4",
    "mpp": "application/vnd.ms-project",
    "mts": "video/mp2t",  # a camera's film; of the other, a 3D format, nobody has heard
    "svgz": "application/gzip",  # image/svg+xml is what it would be with a Content-Encoding, which we do not add
    "wav": "audio/wav",  # not registered; audio/x-wav is older
}
_SOURCES = ("iana", "apache", "nginx", None)

Database = dict[str, dict[str, Any]]


def table(package: Path) -> str:
    """The text of media_types.json. Raises ValueError when `CHOSEN` names a type that the database does not know."""
    database: Database = json.loads((package / "db.json").read_text(encoding="utf-8"))
    version = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    types = _types(database)
    made = {
        "about": "Made by server/hosting/mime_db.py; not to be edited by hand.",
        "source": f"npm package mime-db {version}",
        "version": version,
        "licence": (package / "LICENSE").read_text(encoding="utf-8").splitlines(),
        "types": types,
        "compressible": sorted({name for name in types.values() if _compressible(database, name)}),
    }
    return json.dumps(made, indent=0, ensure_ascii=False) + "\n"


def _types(database: Database) -> dict[str, str]:
    candidates: dict[str, list[str]] = {}
    for name, entry in database.items():
        for extension in entry.get("extensions", ()):
            candidates.setdefault(extension, []).append(name)
    unknown = sorted(set(CHOSEN.values()) - set(database))
    if unknown:
        raise ValueError(f"not in mime-db any more: {', '.join(unknown)}")
    best = {
        extension: min(names, key=lambda n: _rank(database, n, extension)) for extension, names in candidates.items()
    }
    return dict(sorted((best | CHOSEN).items()))


def _rank(database: Database, name: str, extension: str) -> tuple[int, int, str]:
    entry = database[name]
    return _SOURCES.index(entry.get("source")), entry["extensions"].index(extension), name


def _compressible(database: Database, name: str) -> bool:
    """Whether the table must say so: not of text, which the rule covers, nor of what is anything at all."""
    return bool(database.get(name, {}).get("compressible")) and name != UNKNOWN and not textual(name)


def main() -> None:
    """Writes the table into the source tree."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m server.hosting.mime_db FOLDER")
    TABLE.write_text(table(Path(sys.argv[1])), encoding="utf-8")


if __name__ == "__main__":
    main()
