"""What is in deploy/, and the examples in its document, read by the programs that they are for where these are here."""

import inspect
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server import settings
from server.cli import app
from server.cli.listener import REQUEST_GRACE
from server.outbox.dispatcher import Dispatcher
from tests.conftest import REPOSITORY, skip_or_fail

DEPLOY = REPOSITORY / "deploy"
COMPOSE = DEPLOY / "compose.scale.yml"
# What the outbox gives mail in flight, by default.
MAIL_GRACE = inspect.signature(Dispatcher.close).parameters["grace_seconds"].default
UNITS = ["doorbell.service", "doorbell-worker@.service"]
DROP_IN = "doorbell.service.d/scale.conf"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """deploy/ somewhere else, as it is in a new clone."""
    return shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=shutil.ignore_patterns("secrets", ".env"))


# What CI installs; the others come with an engine or an init that it has not.
INSTALLED = ("nginx", "caddy")


def program(name: str) -> str:
    """Where it is; skips where it is not."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        (skip_or_fail if name in INSTALLED else pytest.skip)(f"{name} is not installed")
    return str(found)


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, env={**os.environ, **environ}
    )


def compose() -> list[str]:
    """How compose is called here; skips where it is not."""
    if shutil.which("docker") and run("docker", "compose", "version").returncode == 0:
        return ["docker", "compose"]
    return [program("docker-compose")]


def make_secrets(copy: Path) -> dict[str, str]:
    made = run("sh", copy / "make-secrets.sh")
    assert made.returncode == 0, made.stderr
    return {file.name: file.read_text() for file in (copy / "secrets").iterdir()}


def test_secrets_are_made_once_and_for_nobody_else(copy: Path) -> None:
    made = make_secrets(copy)
    assert set(made) == {"secret_key", "database_url", "broker_url", "postgres.env", "rabbitmq.env"}
    assert make_secrets(copy) == made
    assert stat.S_IMODE((copy / "secrets").stat().st_mode) == 0o700
    # Each container's user reads them, and is another than ours.
    assert all(file.stat().st_mode & stat.S_IROTH for file in (copy / "secrets").iterdir())


def test_secrets_are_what_the_server_and_its_neighbours_understand(copy: Path) -> None:
    made = make_secrets(copy)
    names = ["secret_key", "database_url", "broker_url"]
    files = {f"DOORBELL_{name.upper()}_FILE": str(copy / "secrets" / name) for name in names}
    loaded = settings.load({**files, "DOORBELL_SMTP_URL": "smtp://mailpit:1025"}, env_file=None)
    assert loaded.secret_key == (made["secret_key"],) and len(made["secret_key"]) == 64
    for url, env in ((loaded.database_url, "postgres.env"), (loaded.broker_url, "rabbitmq.env")):
        password = made[env].strip().partition("=")[2]
        assert len(password) == 64 and f"doorbell:{password}@" in str(url)


def test_compose_file_is_understood(copy: Path) -> None:
    make_secrets(copy)
    understood = run(*compose(), "--file", copy / "compose.scale.yml", "config")
    assert understood.returncode == 0, understood.stderr
    assert "condition: service_completed_successfully" in understood.stdout


def test_compose_file_without_secrets_names_what_is_missing(copy: Path) -> None:
    refused = run(*compose(), "--file", copy / "compose.scale.yml", "config", "--quiet")
    assert refused.returncode != 0
    assert "secrets/" in refused.stderr and ".env" in refused.stderr


@pytest.mark.parametrize("file", [COMPOSE, REPOSITORY / "docker-compose.yml"], ids=lambda file: file.name)
def test_compose_files_set_only_what_is_a_setting(file: Path) -> None:
    named = set(re.findall(r"^ +DOORBELL_(\w+):", file.read_text(), re.M))
    assert len(named) > 15
    assert {name.lower().removesuffix("_file") for name in named} <= settings.Settings.model_fields.keys()


@pytest.mark.parametrize("file", [COMPOSE, REPOSITORY / "docker-compose.yml"], ids=lambda file: file.name)
def test_containers_get_the_time_that_stopping_takes(file: Path) -> None:
    periods = [int(seconds) for seconds in re.findall(r"stop_grace_period: (\d+)s", file.read_text())]
    assert periods[0] > REQUEST_GRACE + MAIL_GRACE


def test_image_is_built_from_what_is_let_through() -> None:
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (REPOSITORY / "Dockerfile").read_text(), re.M)
    named = {source for line in copied for source in line.split()}
    let_through = set(re.findall(r"^!(.+)$", (REPOSITORY / ".dockerignore").read_text(), re.M))
    assert named and named == let_through


def lines(unit: str, key: str) -> list[str]:
    """What the unit says of `key`, line by line."""
    return re.findall(rf"^{key}=(.*)$", (DEPLOY / unit).read_text(), re.M)


def unit_environment(unit: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for line in lines(unit, "Environment") for pair in line.split())


@pytest.mark.parametrize("unit", UNITS)
def test_command_of_a_unit_is_one_of_ours(unit: str) -> None:
    (command,) = lines(unit, "ExecStart")
    path, *arguments = shlex.split(command.replace("%i", "1"))
    assert path == "/opt/doorbell/bin/doorbell"
    assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0
    refused = CliRunner().invoke(app, [*arguments, "--no-such-option"])
    assert refused.exit_code == 2 and "--no-such-option" in refused.output


@pytest.mark.parametrize("unit", [*UNITS, DROP_IN])
def test_environment_of_a_unit_are_settings_and_credentials_that_it_has(unit: str) -> None:
    credentials = {line.split(":")[0] for line in lines(unit, "LoadCredential")}
    environ = unit_environment(unit)
    assert {value.removeprefix("%d/") for value in environ.values() if value.startswith("%d/")} == credentials
    named = {name.removeprefix("DOORBELL_").lower().removesuffix("_file") for name in environ}
    assert named and named <= settings.Settings.model_fields.keys()


def test_units_are_hardened_alike() -> None:
    hardened = [(DEPLOY / unit).read_text().partition("\nUser=")[2] for unit in UNITS]
    assert hardened[0] == hardened[1] and "ProtectSystem=strict" in hardened[0]


@pytest.mark.parametrize("unit", UNITS)
def test_unit_gives_the_time_that_stopping_takes(unit: str) -> None:
    assert int(lines(unit, "TimeoutStopSec")[0]) > REQUEST_GRACE + MAIL_GRACE


@pytest.mark.parametrize("unit", ["doorbell.service", "doorbell-worker@1.service"])
def test_systemd_understands_the_unit(unit: str, copy: Path) -> None:
    analyze = program("systemd-analyze")
    (copy / "doorbell-worker@.service").rename(copy / "doorbell-worker@1.service")
    for file in copy.glob("*.service"):
        file.write_text(file.read_text().replace("/opt/doorbell/bin/doorbell", sys.executable))
    verified = run(analyze, "verify", "--man=no", copy / unit, SYSTEMD_UNIT_PATH=f"{copy}:")
    assert (verified.returncode, verified.stderr) == (0, "")
    if "--threshold" in run(analyze, "--help").stdout:
        exposed = run(analyze, "security", "--offline=true", "--threshold=20", copy / unit)
        assert exposed.returncode == 0, exposed.stdout


def example(language: str) -> str:
    """The example in the document on deploying that is written in `language`."""
    (found,) = re.findall(
        rf"^```{language}\n(.*?)^```$", (REPOSITORY / "docs" / "deploying.md").read_text(), re.M | re.S
    )
    return str(found)


@pytest.mark.parametrize("where", ["deploy/Caddyfile", "docs/deploying.md"])
def test_caddy_understands_its_configuration(where: str, tmp_path: Path) -> None:
    caddy = program("caddy")
    file = tmp_path / "Caddyfile"
    file.write_text((DEPLOY / "Caddyfile").read_text() if where.startswith("deploy") else example("caddyfile"))
    # Not `validate`: it would make an authority where the configuration says.
    adapted = run(caddy, "adapt", "--config", file, "--adapter", "caddyfile", HOME=str(tmp_path))
    assert adapted.returncode == 0, adapted.stderr
    assert '"keepalive":{"idle_timeout":60000000000}' in adapted.stdout.replace('"keep_alive"', '"keepalive"')
