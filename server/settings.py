"""The environment, read once into a frozen `Settings`.

Owns the names, the defaults and the refusals of the `DOORBELL_…` variables. Knows nothing of what they are used for.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self
from urllib.parse import unquote, urlsplit

from dotenv.parser import parse_stream
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

PREFIX = "DOORBELL_"

Tls = Literal["none", "starttls", "tls"]

# scheme -> TLS mode, default port (RFC 6409, RFC 8314)
_SCHEMES: dict[str, tuple[Tls, int]] = {
    "smtp": ("none", 25),
    "smtp+starttls": ("starttls", 587),
    "smtps": ("tls", 465),
}


class SettingsError(Exception):
    """The environment is wrong; `problems` has a line each, naming the variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Smtp:
    """A mail relay: where, how safe, and as whom."""

    host: str
    port: int
    tls: Tls
    username: str | None
    password: str | None

    def __repr__(self) -> str:
        return f"<Smtp {self.host}:{self.port} tls={self.tls} auth={self.username is not None}>"


def _smtp(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        # The error quotes what it takes for the port, and that is a password with a slash or a hash in it.
        raise ValueError("not a URL; in user and password / is written %2F, # is %23 and @ is %40") from None
    if url.scheme not in _SCHEMES:
        raise ValueError(f"must begin with {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    if not url.hostname or url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError("must look like smtp://user:password@host:port")
    tls, default_port = _SCHEMES[url.scheme]
    return Smtp(
        host=url.hostname,
        port=port or default_port,
        tls=tls,
        username=unquote(url.username) if url.username else None,
        password=unquote(url.password) if url.password else None,
    )


def _origin(value: str) -> str:
    try:
        url = urlsplit(value)
    except ValueError:
        raise ValueError("must look like https://example.com") from None  # the error quotes it, and it may be a secret
    plain = not (url.query or url.fragment or url.username or url.path not in ("", "/"))
    if url.scheme not in ("http", "https") or not url.hostname or not plain or url.port == 0:
        raise ValueError("must look like https://example.com, without a path")
    if not url.hostname.isascii():
        raise ValueError("must have its host name in ASCII (punycode): it is said to mail servers too")
    return value.rstrip("/")


def _database(value: str) -> str:
    if re.fullmatch(r"sqlite:///[^:?][^?]*", value):
        return value
    try:
        url = urlsplit(value)
        shared = url.scheme == "postgresql+asyncpg" and len(url.path) > 1 and (url.port or 1)
    except ValueError:
        shared = False  # not the error: it quotes what it takes for the port, and that may be a password
    if not shared:
        raise ValueError(
            "must look like sqlite:///path/to/file.db or postgresql+asyncpg://user:password@host:5432/name; "
            "in user and password / is written %2F, # is %23 and @ is %40"
        )
    return value


def _broker(value: str) -> str:
    try:
        url = urlsplit(value)
        known = url.scheme in ("amqp", "amqps", "redis", "rediss") and url.hostname and (url.port or 1)
    except ValueError:
        known = False  # not the error: it quotes a part that may be the password
    if not known:
        raise ValueError(
            "must look like amqp://user:password@host:5672 or redis://host:6379/0; "
            "in user and password / is written %2F, # is %23 and @ is %40"
        )
    return value


def _secrets(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = tuple(secret.strip() for secret in value.split(","))
    if any(len(secret) < 16 for secret in found):
        # Not the value: it is a secret, or nearly one.
        raise ValueError("each must have at least 16 characters; several are separated by commas, the newest first")
    return found


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = tuple(one.strip() for one in value.split(","))
    for one in found:
        try:
            ipaddress.ip_network(one)
        except ValueError as error:
            raise ValueError(f"must be addresses or networks like 10.0.0.0/8, separated by commas: {error}") from None
    return found


def _folder(value: Path) -> Path:
    if "?" in str(value):
        raise ValueError("must not have a question mark in it: the database's URL could not hold it")
    return value


def _on_off(value: object) -> object:
    return {"on": True, "off": False}.get(value.lower(), value) if isinstance(value, str) else value


Switch = Annotated[bool, BeforeValidator(_on_off)]


class Settings(BaseModel):
    """What the operator chose. Each field is the variable of the same name, with the prefix, in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, validate_default=False)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    base_url: Annotated[str, AfterValidator(_origin)] = ""
    sites_dir: Path = Path("sites")
    data_dir: Annotated[Path, AfterValidator(_folder)] = Path("var")
    database_url: Annotated[str, AfterValidator(_database)] = ""
    smtp_url: Annotated[Smtp | None, BeforeValidator(_smtp)] = None
    smtp_pool_size: Annotated[int, Field(ge=1, le=100)] = 4
    smtp_max_messages: Annotated[int, Field(ge=1)] = 100
    smtp_idle_seconds: Annotated[float, Field(gt=0)] = 30
    smtp_rate: Annotated[float, Field(gt=0, le=10_000)] | None = None
    broker_url: Annotated[str, AfterValidator(_broker)] | None = None
    mail_from: str | None = None
    mail_budget: Annotated[int, Field(ge=0)] = 1000
    mail_retention_days: Annotated[int, Field(ge=0)] = 30
    unconfirmed_retention_days: Annotated[int, Field(ge=1)] = 30
    signup_retention_days: Annotated[int, Field(ge=0)] = 0
    secret_key: Annotated[tuple[str, ...], BeforeValidator(_secrets)] = ()
    trusted_proxies: Annotated[tuple[str, ...], BeforeValidator(_networks)] = ()
    limits: Switch = True
    ops: Literal["private", "public"] = "private"
    index: Switch = True
    cache_mb: Annotated[int, Field(ge=0, le=2**20)] = 256
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    access_log: Switch = False

    @model_validator(mode="after")
    def _derive(self) -> Self:
        derived = {
            "base_url": f"http://localhost:{self.port}",
            "database_url": f"sqlite:///{(self.data_dir / 'doorbell.db').absolute()}",
        }
        for name, value in derived.items():
            if not getattr(self, name):
                self.__dict__[name] = value
        return self


def _env_file(file: Path, problems: list[str]) -> dict[str, str]:
    """The variables in `file`. Nothing in a value is expanded: a `$` in a password is a `$`."""
    found: dict[str, str] = {}
    try:
        with file.open(encoding="utf-8") as lines:
            for binding in parse_stream(lines):
                if binding.error or (binding.key and binding.value is None):
                    problems.append(f"{file}: line {binding.original.line}: must look like NAME=value")
                elif binding.key and binding.value is not None:
                    found[binding.key] = binding.value
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{file}: cannot be read: {error}")
    return found


def _with_files(values: dict[str, str], problems: list[str]) -> dict[str, str]:
    """Replaces each `X_FILE` by `X`, read from that file: how orchestrators hand over secrets."""
    read: dict[str, str] = {}
    for name, value in values.items():
        if not name.endswith("_file"):
            read.setdefault(name, value)
            continue
        target = name.removesuffix("_file")
        if target in values:
            problems.append(f"{_variable(name)}: {_variable(target)} is set too; set one of them")
            continue
        try:
            read[target] = Path(value).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{_variable(name)}: cannot read {value}: {error}")
    return read


def _variable(name: object) -> str:
    return PREFIX + str(name).upper()


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, Settings.model_fields, n=1)
    hint = f"; did you mean {_variable(near[0])}?" if near else ""
    return f"{_variable(name)}: is not a setting of this version{hint}"


def load(
    environ: Mapping[str, str] | None = None,
    env_file: Path | None = Path(".env"),
    overrides: Mapping[str, str] = MappingProxyType({}),
) -> Settings:
    """Settings from `overrides` (by field), else the environment, else `env_file`, which may be missing.

    An empty value is unset.

    Raises SettingsError that names every wrong variable, an unknown one too: a misspelt DOORBELL_SMTP_URL would
    otherwise send no mail, in silence.
    """
    problems: list[str] = []
    raw = _env_file(env_file, problems) if env_file else {}
    raw |= os.environ if environ is None else environ
    own = {
        name.removeprefix(PREFIX).lower(): value.strip()
        for name, value in raw.items()
        if name.startswith(PREFIX) and value.strip()
    }
    values = _with_files(own, problems) | dict(overrides)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            name = str(item["loc"][0]) if item["loc"] else "?"
            message = item["msg"].removeprefix("Value error, ")
            problems.append(_unknown(name) if item["type"] == "extra_forbidden" else f"{_variable(name)}: {message}")
    else:
        problems += _missing(settings)
    if problems:
        raise SettingsError(sorted(problems))
    return settings


def _missing(settings: Settings) -> list[str]:
    """What others make necessary."""
    shared = settings.broker_url is not None or not settings.database_url.startswith("sqlite:")
    problems = []
    if shared and not settings.secret_key:
        problems.append(
            f"{_variable('secret_key')}: with PostgreSQL or a broker it must be given, the same to every process: "
            "what one of them signed must be good for the others"
        )
    if settings.broker_url and find_spec("celery") is None:
        problems.append(
            f"{_variable('broker_url')}: needs Celery, which is not installed: pip install 'doorbell[celery]'"
        )
    if settings.broker_url and settings.smtp_url is None:
        problems.append(f"{_variable('smtp_url')}: with a broker it must be given: workers share no built-in mailbox")
    return problems
