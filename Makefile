# `make run` and `make test` work in a new clone: they need Python 3.11+, make and the package registry, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AUDIT := tests/audit
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
NODEMAILER := bench/senders/nodemailer
BENCHES := static mail signup

# Where it is set, each process of the tests would compile the program, and them, anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install install-dev install-bench install-audit run test soak audit bench check lint messages lock clean
.DEFAULT_GOAL := run

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev
install-bench: $(VENV)/.installed-bench $(NODEMAILER)/node_modules/.package-lock.json
install-audit: $(AUDIT)/node_modules/.installed

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

$(AUDIT)/node_modules/.installed: $(AUDIT)/package.json $(AUDIT)/package-lock.json
	@command -v npm >/dev/null || { \
	  echo "The audit needs node 18.20 or newer, with npm. On Debian and Ubuntu: apt install nodejs npm" >&2; exit 1; }
	@echo "Installing what the audit checks with (once) ..."
	@npm ci --silent --prefix $(AUDIT)
	@touch $@

run: install
	@$(BIN)/python -m server serve

check: install
	@$(BIN)/python -m server check

# A worker that has nothing left takes over half of what another has. More than there are cores, for many tests wait.
# ARGS="-n0 tests/web" runs some, one by one. The short form of the audit is part of it where npm is, and is skipped
# elsewhere.
SIDE_BY_SIDE := --numprocesses=4 --dist=worksteal
test: install-dev $(if $(shell command -v npm),install-audit)
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

# The long form of what is tested by chance: about half an hour.
soak: install-dev
	@$(BIN)/python -m pytest --soak -m soak -n0 --timeout=7200 $(ARGS)

# Every page of both sites, by every checker: ten minutes, on a machine that does nothing else. ARGS="-k privacy": some.
audit: install-dev install-audit
	@for each in "node nodejs" "java default-jre-headless" "chromium chromium"; do set -- $$each; \
	  command -v $$1 >/dev/null || { echo "The audit needs $$1. On Debian and Ubuntu: apt install $$2" >&2; exit 1; }; done
	@CI=true AUDIT=full $(BIN)/python -m pytest -q -n0 $(AUDIT) $(ARGS)

# nginx, Caddy, wrk, smtp-sink and node are programs of the system: bench/README.md says how to get them.
# make bench BENCHES=mail ARGS=--quick
bench: install-bench
	@for bench in $(BENCHES); do $(BIN)/python -m bench.$$bench $(ARGS) || exit; done

lint: install-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Brings the catalogues in line with the source, and says what there is to translate.
messages: install
	@$(BIN)/python -m server.i18n.extract

# Needs uv. --no-emit-index-url: a lock file names packages, never a place to fetch them from.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml
lock:
	$(LOCK) --output-file requirements.lock
	$(LOCK) --all-extras --output-file requirements-all.lock
	$(LOCK) --all-extras --group dev --output-file requirements-dev.lock
	$(LOCK) --group bench --output-file requirements-bench.lock

clean:
	rm -rf $(VENV) $(NODEMAILER)/node_modules $(AUDIT)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
