"""site.toml -> a frozen `Site`: what the owner of one site asked for.

Owns the keys, their defaults and their refusals. Knows nothing of HTTP, SQL or mail.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from email.utils import getaddresses, parseaddr, quote
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import limits
from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

# First path segments that the server itself answers: no site may be called so.
RESERVED_SLUGS = frozenset(
    {"signup", "thanks", "confirm", "unsubscribe", "healthz", "readyz", "metrics", "docs", "openapi.json"}
    | {"_doorbell", "_mailbox"}
)
# Names in a form that mean something to the server: no declared field may be called so.
RESERVED_FIELDS = frozenset({"site", "email", "name", "website", "_next", "_token", "altcha"})

FieldType = Literal["text", "textarea", "email", "tel", "number", "date", "select", "checkbox"]

_DEFAULT_MAX: dict[FieldType, int] = {"text": 200, "textarea": 5000, "email": 254, "tel": 40, "number": 40}


class SiteError(Exception):
    """A site that cannot be served; `problems` has a line each, beginning with the file."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def address(value: str) -> str:
    """One mail address, normalised, its domain as ASCII (punycode): the form that every relay takes.

    No DNS look-up. Quoted local parts, address literals, special-use domains and local parts beyond ASCII are
    refused: few relays take them, and they are where parsers disagree (CVE-2023-27043). Raises ValueError.
    """
    try:
        found = validate_email(value, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None
    if found.ascii_email is None:  # cannot be, with allow_smtputf8=False
        raise ValueError("The address must be plain ASCII before the @-sign.")
    return found.ascii_email


def mailbox(value: str) -> str:
    """A sender, `Name <address>` or an address alone, as it will stand in From. Raises ValueError."""
    found = getaddresses([value])
    if len(found) != 1 or not found[0][1] or any(ord(char) < 32 for char in value):
        raise ValueError("must look like Name <name@example.com>; a name with a comma stands in quotes")
    name, addr = found[0]
    # `localhost` is what the built-in mailbox sends from; a real relay is never given it.
    checked = addr if re.fullmatch(r"[A-Za-z0-9._+-]+@localhost", addr) else address(addr)
    plain = f"{name} <{checked}>" if name else checked
    return plain if parseaddr(plain) == (name, checked) else f'"{quote(name)}" <{checked}>'


def _colour(value: str) -> str:
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        raise ValueError("must be a colour like #1a6b54")
    return value.lower()


def _host(value: str) -> str:
    if not re.fullmatch(
        r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value
    ):
        raise ValueError("must be a lower-case host name like petcare.example, without scheme and port")
    return value


def _local_path(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~-][A-Za-z0-9._~/-]*", value) or ".." in value.split("/"):
        raise ValueError("must be a path inside the site, like thank-you/")
    return value


def _web_origin(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or value != f"{url.scheme}://{url.netloc}".lower():
        raise ValueError("must be an origin like https://www.example.com, in lower case, without a path")
    return value


def _target(value: str) -> str:
    # An address elsewhere, whole; or a path inside the site. Nothing that a browser would read as something else.
    if re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?(/[!-~]*)?", value) and "\\" not in value:
        return value
    return _local_path(value)


def _rate(value: str) -> str:
    try:
        limits.parse(value)
    except ValueError:
        raise ValueError("must look like 60 per 10 minutes") from None
    return value


Colour = Annotated[str, AfterValidator(_colour)]
Host = Annotated[str, AfterValidator(_host)]
Address = Annotated[str, AfterValidator(address)]
WebOrigin = Annotated[str, AfterValidator(_web_origin)]
Target = Annotated[str, AfterValidator(_target)]
Rate = Annotated[str, AfterValidator(_rate)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FormField(_Section):
    """A field that the site's form has besides `email` and `name`. `max` is in characters.

    With `consent`, that the box was ticked is kept with the words of its label.
    """

    type: FieldType = "text"
    label: Annotated[str, Field(min_length=1, max_length=500)] = ""
    required: bool = False
    consent: bool = False
    max: Annotated[int, Field(ge=1, le=20_000)] | None = None
    choices: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.type == "select") != bool(self.choices):
            raise ValueError("a select needs choices, and only a select has them")
        if len(set(self.choices)) != len(self.choices):
            raise ValueError("a choice is listed twice")
        if self.max is not None and self.type not in _DEFAULT_MAX:
            raise ValueError(f"max does not apply to a {self.type}")
        if self.consent and not (self.type == "checkbox" and self.label):
            raise ValueError("consent is for a checkbox, and its label says to what")
        return self

    @property
    def limit(self) -> int:
        """Greatest length in characters."""
        return self.max or _DEFAULT_MAX.get(self.type, 200)


class Colors(_Section):
    """Colours for the site's mails and for the server's own pages about it."""

    accent: Colour = "#2f5d50"


class Mail(_Section):
    """Who the site's mail is from, and who hears of a signup."""

    sender: Annotated[str, AfterValidator(mailbox)] | None = Field(default=None, alias="from")
    notify: tuple[Address, ...] = ()


class Signup(_Section):
    """The site's form. `next` and `allowed_origins` are exact; `thanks` is a path inside the site.

    `client_limit` is how many posts a network of visitors has, `site_limit` how many all of them have together.
    """

    double_opt_in: bool = True
    thanks: Annotated[str, AfterValidator(_local_path)] | None = None
    allowed_origins: tuple[WebOrigin, ...] = ()
    next: tuple[Target, ...] = ()
    proof_of_work: bool = False
    client_limit: Rate = "60 per 10 minutes"
    site_limit: Rate = "2000 per hour"
    fields: Mapping[str, FormField] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.fields:
            if name in RESERVED_FIELDS:
                raise ValueError(f"fields.{name}: is a name the server uses; choose another")
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
                raise ValueError(f"fields.{name}: must be a-z, 0-9 and _, at most 40, and begin with a letter")
        return self


class Site(_Section):
    """One site: its folder's name is its slug, `public` the only directory that is ever served."""

    slug: str
    folder: Path
    title: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
    locale: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = "en"
    hosts: tuple[Host, ...] = ()
    spa: bool = False
    colors: Colors = Colors()
    mail: Mail = Mail()
    signup: Signup = Signup()

    @property
    def public(self) -> Path:
        return self.folder / "public"

    @property
    def parts(self) -> Path:
        return self.folder / "parts"

    @property
    def emails(self) -> Path:
        return self.folder / "emails"

    def label(self, name: str) -> str:
        """How the form calls a declared field."""
        return self.signup.fields[name].label or name.replace("_", " ").capitalize()


def _reasons(file: Path, error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"])
        what = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        lines.append(f"{file}: {where + ': ' if where else ''}{what}")
    return lines


def load(folder: Path) -> Site:
    """The site in `folder`. Raises SiteError with every problem found, each with its file."""
    file = folder / "site.toml"
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", folder.name) or folder.name in RESERVED_SLUGS:
        raise SiteError(
            [f"{folder}: a site's folder must be named with a-z, 0-9, _ and -, and not like an own path of the server"]
        )
    try:
        data: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SiteError([f"{file}: cannot be read: {error}"]) from None
    except tomllib.TOMLDecodeError as error:
        raise SiteError([f"{file}: {error}"]) from None
    if clash := sorted({"slug", "folder"} & data.keys()):
        raise SiteError([f"{file}: {name}: unknown key" for name in clash])
    try:
        site = Site.model_validate({**data, "slug": folder.name, "folder": folder})
    except ValidationError as error:
        raise SiteError(_reasons(file, error)) from None
    if not os.path.isfile(site.public / "index.html"):
        raise SiteError([f"{site.public / 'index.html'}: is missing or cannot be read; it is the site's first page"])
    return site


def load_all(directory: Path) -> tuple[dict[str, Site], list[str]]:
    """Every site below `directory` by slug, and the problems of those that could not be loaded."""
    sites: dict[str, Site] = {}
    problems: list[str] = []
    try:
        folders = sorted(entry for entry in directory.iterdir() if (entry / "site.toml").exists())
    except OSError as error:
        return {}, [f"{error.filename or directory}: cannot be read: {error.strerror}"]
    for folder in folders:
        try:
            sites[folder.name] = load(folder)
        except SiteError as error:
            problems += error.problems
    claims: dict[str, str] = {}
    for site in sites.values():
        for host in site.hosts:
            if claims.setdefault(host, site.slug) != site.slug:
                problems.append(f"{site.folder / 'site.toml'}: hosts: {host} is claimed by {claims[host]} too")
    return sites, problems
