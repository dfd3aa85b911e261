from pathlib import Path

import pytest
from pydantic import ValidationError

from server.settings import SettingsError, load


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(environ, env_file=None)
    return caught.value.problems


def test_nothing_set() -> None:
    settings = load({}, env_file=None)
    assert (settings.host, settings.port, settings.base_url) == ("127.0.0.1", 8000, "http://localhost:8000")
    assert (settings.smtp_url, settings.mail_from, settings.ops, settings.index) == (None, None, "private", True)
    assert settings.database_url == f"sqlite:///{Path('var/doorbell.db').absolute()}"


def test_base_url_follows_the_port() -> None:
    assert load({"DOORBELL_PORT": "9000"}, env_file=None).base_url == "http://localhost:9000"


def test_other_variables_are_none_of_ours() -> None:
    assert load({"PATH": "/bin", "PORT": "1", "doorbell_port": "x"}, env_file=None).port == 8000


def test_empty_is_unset() -> None:
    assert load({"DOORBELL_SMTP_URL": " ", "DOORBELL_PORT": ""}, env_file=None).smtp_url is None


def test_settings_cannot_be_changed() -> None:
    settings = load({}, env_file=None)
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "80a"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("WORKERS", "0"),
        ("WORKERS", "many"),
        ("WORKERS", "65"),
        ("BASE_URL", "example.com"),
        ("BASE_URL", "ftp://example.com"),
        ("BASE_URL", "https://example.com/path"),
        ("BASE_URL", "https://example.com?x=1"),
        ("BASE_URL", "https://example.com#top"),
        ("BASE_URL", "https://me:secret@example.com"),
        ("BASE_URL", "https://example.com:99999"),
        ("BASE_URL", "http://["),
        ("DATABASE_URL", "mysql://localhost/x"),
        ("MAIL_RETENTION_DAYS", "-1"),
        ("MAIL_RETENTION_DAYS", "a month"),
        ("SMTP_URL", "mail.example.com"),
        ("SMTP_URL", "http://mail.example.com"),
        ("SMTP_URL", "smtp://"),
        ("SMTP_URL", "smtp://mail.example.com/x"),
        ("SMTP_URL", "smtp://mail.example.com:70000"),
        ("SMTP_POOL_SIZE", "0"),
        ("SMTP_MAX_MESSAGES", "-1"),
        ("SMTP_IDLE_SECONDS", "never"),
        ("OPS", "open"),
        ("INDEX", "perhaps"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_wrong_value_names_its_variable(variable: str, value: str) -> None:
    (line,) = problems({f"DOORBELL_{variable}": value})
    assert line.startswith(f"DOORBELL_{variable}: ")


def test_every_wrong_variable_is_named() -> None:
    lines = problems({"DOORBELL_PORT": "x", "DOORBELL_OPS": "y", "DOORBELL_SMPT_URL": "z"})
    assert [line.split(":")[0] for line in lines] == ["DOORBELL_OPS", "DOORBELL_PORT", "DOORBELL_SMPT_URL"]


def test_misspelt_variable_gets_a_hint() -> None:
    (line,) = problems({"DOORBELL_SMPT_URL": "smtp://mail.example.com"})
    assert line == "DOORBELL_SMPT_URL: is not a setting of this version; did you mean DOORBELL_SMTP_URL?"


def test_variable_like_none_of_ours_gets_no_hint() -> None:
    assert problems({"DOORBELL_ZZZZ": "1"}) == ["DOORBELL_ZZZZ: is not a setting of this version"]


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("smtp://mail.example.com", "mail.example.com", 25, "none"),
        ("smtp+starttls://mail.example.com", "mail.example.com", 587, "starttls"),
        ("smtps://mail.example.com/", "mail.example.com", 465, "tls"),
        ("smtp://[::1]:2525", "::1", 2525, "none"),
    ],
)
def test_relay(url: str, host: str, port: int, tls: str) -> None:
    smtp = load({"DOORBELL_SMTP_URL": url}, env_file=None).smtp_url
    assert smtp is not None
    assert (smtp.host, smtp.port, smtp.tls, smtp.username, smtp.password) == (host, port, tls, None, None)


def test_user_and_password_are_percent_decoded() -> None:
    smtp = load({"DOORBELL_SMTP_URL": "smtps://me%40x.example:p%2Fw%23@mail.example.com"}, env_file=None).smtp_url
    assert smtp is not None
    assert (smtp.username, smtp.password) == ("me@x.example", "p/w#")


def test_password_is_not_shown() -> None:
    settings = load({"DOORBELL_SMTP_URL": "smtps://me:hunter2@mail.example.com"}, env_file=None)
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize("password", ["hunter2/x", "hunter2#x", "hunter2?x"])
def test_password_that_breaks_the_url_is_not_shown(password: str) -> None:
    (line,) = problems({"DOORBELL_SMTP_URL": f"smtps://me:{password}@mail.example.com"})
    assert line.startswith("DOORBELL_SMTP_URL: ")
    assert "hunter2" not in line


@pytest.mark.parametrize("password", ["hunter2/x", "hunter2#x", "hunter2?x", "hunter2[x", "hunter2\u2100x"])
@pytest.mark.parametrize("variable", ["DOORBELL_BROKER_URL", "DOORBELL_DATABASE_URL"])
def test_password_that_breaks_the_url_of_what_is_shared_is_not_shown(variable: str, password: str) -> None:
    scheme = {"DOORBELL_BROKER_URL": "amqp", "DOORBELL_DATABASE_URL": "postgresql+asyncpg"}[variable]
    (line,) = problems({variable: f"{scheme}://me:{password}@there.example/name"})
    assert line.startswith(f"{variable}: must look like")
    assert "hunter2" not in line


def test_secret_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "relay").write_text("smtp://mail.example.com\n")
    smtp = load({"DOORBELL_SMTP_URL_FILE": str(tmp_path / "relay")}, env_file=None).smtp_url
    assert smtp is not None and smtp.host == "mail.example.com"


def test_secret_file_missing(tmp_path: Path) -> None:
    (line,) = problems({"DOORBELL_SMTP_URL_FILE": str(tmp_path / "none")})
    assert line.startswith(f"DOORBELL_SMTP_URL_FILE: cannot read {tmp_path / 'none'}")


def test_secret_given_twice(tmp_path: Path) -> None:
    (tmp_path / "relay").write_text("smtp://a.example")
    lines = problems({"DOORBELL_SMTP_URL_FILE": str(tmp_path / "relay"), "DOORBELL_SMTP_URL": "smtp://b.example"})
    assert lines == ["DOORBELL_SMTP_URL_FILE: DOORBELL_SMTP_URL is set too; set one of them"]


def test_wrong_value_in_a_file_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "relay").write_text("mail.example.com")
    (line,) = problems({"DOORBELL_SMTP_URL_FILE": str(tmp_path / "relay")})
    assert line.startswith("DOORBELL_SMTP_URL: ")


def test_env_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("# a comment\nDOORBELL_PORT=9001\nDOORBELL_OPS=public\nOTHER=1\n")
    settings = load({"DOORBELL_PORT": "9002"}, env_file)
    assert (settings.port, settings.ops) == (9002, "public")


def test_unknown_variable_in_the_env_file(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("DOORBELL_PROT=9001\n")
    with pytest.raises(SettingsError, match=r"DOORBELL_PROT: .* did you mean DOORBELL_PORT"):
        load({}, env_file)


def test_env_file_missing(tmp_path: Path) -> None:
    assert load({}, tmp_path / ".env").port == 8000


def test_command_line_wins() -> None:
    assert load({"DOORBELL_PORT": "9002"}, env_file=None, overrides={"port": "9003"}).port == 9003


def test_nothing_is_expanded_in_the_env_file(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("DOORBELL_SMTP_URL='smtp://me:p$HOME${X}@mail.example.com'\n")
    smtp = load({"HOME": "/root"}, env_file).smtp_url
    assert smtp is not None
    assert smtp.password == "p$HOME${X}"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PORT=1\nDOORBELL_SMTP_URL smtps://mail.example.com\n", r"line 2: must look like NAME=value"),
        (b"DOORBELL_PORT\n", r"line 1: must look like NAME=value"),
        (b"DOORBELL_MAIL_FROM=J\xf6rg <j@example.com>\n", r"cannot be read"),
    ],
)
def test_env_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    env_file = tmp_path / ".env"
    env_file.write_bytes(content)
    with pytest.raises(SettingsError, match=says):
        load({}, env_file)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DOORBELL_BASE_URL", "https://käse.example"),
        ("DOORBELL_DATA_DIR", "what?"),
        ("DOORBELL_DATABASE_URL", "sqlite:///:memory:"),
        ("DOORBELL_DATABASE_URL", "sqlite:///"),
    ],
)
def test_value_that_could_not_work_is_refused(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        load({variable: value}, env_file=None)
