# `make run` and `make test` work in a new clone: they need Python 3.11+, make and the package registry, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
NODEMAILER := bench/senders/nodemailer
BENCHES := static mail signup

.PHONY: install install-dev install-bench run test soak bench check lint lock clean
.DEFAULT_GOAL := run

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev
install-bench: $(VENV)/.installed-bench $(NODEMAILER)/node_modules/.package-lock.json

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Doorbell needs Python 3.11 or newer; '$(PYTHON)' is older, or missing. Name another: make PYTHON=... $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "Could not make $(VENV). On Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }

# One stamp a lock file: nothing is installed twice, and a changed lock file installs what is new.
$(VENV)/.installed: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing what Doorbell needs (once) ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@echo "Installing what the tests need (once) ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.installed-bench: requirements-bench.lock $(VENV)/.installed
	@echo "Installing what the bench compares with (once) ..."
	@$(PIP) install --require-hashes -r requirements-bench.lock
	@touch $@

$(NODEMAILER)/node_modules/.package-lock.json: $(NODEMAILER)/package-lock.json
	@command -v npm >/dev/null || { echo "Without Nodemailer: it needs npm."; exit 0; }; \
	  npm ci --prefix $(NODEMAILER) --ignore-scripts --no-audit --no-fund --silent

run: install
	@$(BIN)/python -m server serve

check: install
	@$(BIN)/python -m server check

# Files side by side, as many as there are cores; ARGS="-n0 tests/web" runs some one by one.
test: install-dev
	@$(BIN)/python -m pytest --numprocesses=auto --dist=loadfile $(ARGS)

# The long form of what is tested by chance: about half an hour.
soak: install-dev
	@$(BIN)/python -m pytest --soak -m soak -n0 --timeout=7200 $(ARGS)

# nginx, Caddy, wrk, smtp-sink and node are programs of the system: bench/README.md says how to get them.
# make bench BENCHES=mail ARGS=--quick
bench: install-bench
	@for bench in $(BENCHES); do $(BIN)/python -m bench.$$bench $(ARGS) || exit; done

lint: install-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Needs uv. --no-emit-index-url: a lock file names packages, never a place to fetch them from.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml
lock:
	$(LOCK) --output-file requirements.lock
	$(LOCK) --group dev --output-file requirements-dev.lock
	$(LOCK) --group bench --output-file requirements-bench.lock

clean:
	rm -rf $(VENV) $(NODEMAILER)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
