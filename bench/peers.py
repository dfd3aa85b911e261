"""The servers under test: how each is started, in its best fair configuration, one process or worker each."""

import getpass
import importlib.util
import os
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from server.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
_BROTLI = "ngx_http_brotli_static_module.so"
_MODULES = (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"), Path("/usr/share/nginx/modules"))


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run: the command, what its environment has besides the usual, and whether its output is kept."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    logged: bool = True

    def full_environment(self) -> dict[str, str]:
        """The environment, without any setting of Doorbell's that the caller's shell may have."""
        usual = {name: value for name, value in os.environ.items() if not name.startswith("DOORBELL_")}
        return usual | {"PYTHONPATH": str(ROOT)} | self.environment


@dataclass(frozen=True, slots=True)
class Folders:
    """Where things are: the work folder, the main site for Doorbell, the document root for the others."""

    work: Path
    sites: Path
    public: Path
    docroot: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """A server. `missing` says why it cannot be run here, or is empty. `clean` is whether URLs lack `.html`."""

    key: str
    title: str
    launch: Callable[[int, Folders], Launch]
    missing: str = ""
    clean: bool = False
    compresses: bool = True


def doorbell(port: int, sites: Path, data: Path, cache_mb: int | None = None, access_log: bool = False) -> Launch:
    """`doorbell serve` with one site, everything else as it is by default but for the log level."""
    data.mkdir(parents=True, exist_ok=True)
    environment = {
        "DOORBELL_SITES_DIR": str(sites),
        "DOORBELL_DATA_DIR": str(data),
        "DOORBELL_PORT": str(port),
        "DOORBELL_LOG_LEVEL": "warning",
    }
    if access_log:
        environment["DOORBELL_ACCESS_LOG"] = "on"
    if cache_mb is not None and "cache_mb" in Settings.model_fields:
        environment["DOORBELL_CACHE_MB"] = str(cache_mb)
    return Launch([sys.executable, "-m", "server", "serve"], environment, logged=not access_log)


def nginx_config(port: int, root: Path, folder: Path, more: str = "") -> Path:
    """Writes nginx's configuration into `folder`: one worker, open files kept open, sidecar files, no log."""
    folder.mkdir(parents=True, exist_ok=True)
    module = next((found for place in _MODULES if (found := place / _BROTLI).is_file()), None)
    # An open file needs a descriptor; without leave to have more, the cache is as large as there are.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    kept = 200_000 if limit == resource.RLIM_INFINITY else max(100, min(200_000, limit - 1000))
    file = folder / "nginx.conf"
    file.write_text(f"""\
{f"load_module {module};" if module else "# without brotli_static: the module is not installed"}
{f"user {getpass.getuser()};" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
worker_rlimit_nofile {kept + 1000};
pid {folder}/nginx.pid;
error_log stderr warn;
events {{
    worker_connections 512;
}}
http {{
    include {_mime_types()};
    default_type application/octet-stream;
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    open_file_cache max={kept} inactive=1h;
    open_file_cache_valid 1h;
    open_file_cache_min_uses 1;
    open_file_cache_errors on;
    gzip_static on;
    {"brotli_static on;" if module else ""}
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
    }}
    {more}
}}
""")
    return file


def nginx_command(config: Path) -> list[str]:
    """Runs nginx with `config` and nothing of the system's."""
    return [program("nginx") or "nginx", "-p", str(config.parent), "-e", "stderr", "-c", str(config)]


def program(name: str) -> str | None:
    """Where a system program is; Debian keeps nginx where an ordinary user's PATH does not look."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def _mime_types() -> str:
    return next((place for place in ("/etc/nginx/mime.types",) if Path(place).is_file()), "mime.types")


def _lane(port: int, at: Folders) -> Launch:
    return doorbell(port, at.sites, at.work / "data" / "lane")


def _lane_log(port: int, at: Folders) -> Launch:
    return doorbell(port, at.sites, at.work / "data" / "lane-log", access_log=True)


def _python(module: str, *more: str, public: bool = False) -> Callable[[int, Folders], Launch]:
    def launch(port: int, at: Folders) -> Launch:
        folder = at.public if public else at.docroot
        return Launch([sys.executable, "-m", f"bench.servers.{module}", str(port), str(folder), *more])

    return launch


def _gunicorn(port: int, at: Folders) -> Launch:
    options = f"--workers 1 --worker-class gthread --threads 32 --keep-alive 600 --bind 127.0.0.1:{port}".split()
    return _white_noise(["gunicorn", *options, "--log-level", "warning"], at)


def _granian(port: int, at: Folders) -> Launch:
    options = f"--interface wsgi --workers 1 --blocking-threads 4 --host 127.0.0.1 --port {port}".split()
    return _white_noise(["granian", *options, "--no-access-log", "--log-level", "warning"], at)


def _white_noise(options: list[str], at: Folders) -> Launch:
    command = [sys.executable, "-m", *options, "bench.servers.white_noise:application"]
    return Launch(command, {"BENCH_FOLDER": str(at.docroot)})


def _nginx(port: int, at: Folders) -> Launch:
    return Launch(nginx_command(nginx_config(port, at.docroot, at.work / "nginx")))


def _caddy(port: int, at: Folders) -> Launch:
    folder = at.work / "caddy"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "Caddyfile"
    file.write_text(f"""\
{{
    admin off
    auto_https off
    log {{
        output discard
    }}
    servers {{
        protocols h1
    }}
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    root * {at.docroot}
    file_server {{
        precompressed br zstd gzip
    }}
}}
""")
    own = {"GOMAXPROCS": "1", "XDG_DATA_HOME": str(folder / "data"), "XDG_CONFIG_HOME": str(folder / "config")}
    command = [program("caddy") or "caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
    return Launch(command, own)


def no_module(*names: str) -> str:
    """Why a peer cannot be run whose packages are not all here; empty where they are."""
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    return f"no Python package {', '.join(absent)}: pip install -r requirements-bench.lock" if absent else ""


def _no_program(name: str) -> str:
    return "" if program(name) else f"no program {name}: apt install {name}"


def every() -> list[Peer]:
    """All servers, in the order of the tables."""
    noise = no_module("whitenoise")
    return [
        Peer("lane", "Doorbell", _lane, clean=True),
        Peer("lane-log", "Doorbell, access log", _lane_log, clean=True),
        Peer("asgi", "Doorbell, asgi.py", _python("asgi", public=True), clean=True),
        Peer("nginx", "nginx", _nginx, _no_program("nginx")),
        Peer("caddy", "Caddy", _caddy, _no_program("caddy")),
        Peer("bare", "constant, same header", _python("bare", public=True)),
        Peer("bare-2", "constant, two fields", _python("bare", "--two-headers", public=True)),
        Peer("servestatic", "ServeStatic", _python("serve_static"), no_module("servestatic")),
        Peer("whitenoise", "WhiteNoise, gunicorn", _gunicorn, noise or no_module("gunicorn")),
        Peer("whitenoise-granian", "WhiteNoise, Granian", _granian, noise or no_module("granian")),
        Peer("staticfiles", "StaticFiles", _python("static_files"), compresses=False),
    ]
