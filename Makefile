# Everything a developer types. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-system check unit lint fmt test test-chaos run bench bench-peers docs page lock clean

PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
# What was installed is known by the content of these two files: a checkout changes times, not contents.
SUM := $(shell cat pyproject.toml requirements.lock | cksum | tr -s ' ' '-')
STAMP := .venv/.setup-$(SUM)
DEV_STAMP := .venv/.setup-dev-$(SUM)
PACKAGES := cluster realtime ingest training serve_apps
# Three at a time: most tests wait for a process of theirs to start. The floor's tests share one floor, one at a time.
# In the order of tests/conftest.py: left to itself, xdist begins with the files of many short tests.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder
export PATH := $(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Without it every process compiles our modules, and pytest rewrites every test, again and again.
unexport PYTHONDONTWRITEBYTECODE

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv and install what the floor needs

setup-dev: $(DEV_STAMP) tests/sdk/node_modules/.stamp setup-system ## Install what the checks and tests need as well

check: $(DEV_STAMP) ## Lint, types, import directions, spelling, unit tests; no Ray, under a minute
	@$(MAKE) --no-print-directory -j2 --output-sync=target lint unit

unit: $(DEV_STAMP)
	pytest $(PARALLEL) -m "not postgres" tests/unit

lint: $(DEV_STAMP) ## The static part of check
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	codespell

fmt: $(DEV_STAMP) ## Format, and mend what the linter can mend
	ruff format .
	ruff check --fix .

test: setup-dev ## Every test but the long ones: unit, contract, integration, end to end
	@failed=0; \
	  pytest $(PARALLEL) -m "not chaos and not floor" --durations=10 || failed=1; \
	  pytest -m "not chaos and floor" --durations=10 || failed=1; \
	  exit $$failed

test-chaos: setup-dev ## The long tests: repeated kills, soaks
	pytest -m chaos

run: $(STAMP) ## Start the floor with its demo; Ctrl-C ends it
	@exec watchfloor up

bench: $(DEV_STAMP) ## Our figures, one JSON line a bench
	@for file in $$(grep -l '^def main' bench/*.py); do \
	  name=$$(basename $$file .py); echo "== $$name"; python -m bench.$$name --json; \
	done
	@echo "== learning"; python -m bench.learning --json

bench-peers: .venv-peers/.stamp ## Ours beside other systems: PEERS=folder of the peers' benchmark, WORK=w1|w2 [PEER="a b"] [OUT=file]
	@. .venv-peers/bin/activate; python $(PEERS)/bench.py $(WORK) \
	  $(foreach kind,Watchfloor WatchfloorMqtt WatchfloorMosquitto,--adapter bench/peers_adapter.py:$(kind)) \
	  $(foreach peer,$(PEER),--peer $(peer)) $(if $(OUT),--out $(OUT))

# Both sides in one environment: the peers' packages are installed, ours are borrowed from .venv behind them.
.venv-peers/.stamp: $(DEV_STAMP) bench/peers_adapter.py
	@[ -e "$(PEERS)/requirements.txt" ] || { echo "say where the peers' benchmark is: make bench-peers PEERS=folder WORK=w1"; exit 1; }
	@$(PYTHON) -m venv .venv-peers && .venv-peers/bin/python -m pip install --quiet -r $(PEERS)/requirements.txt
	@libraries=$$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	  own=$$(.venv-peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	  printf '%s\n' "$(CURDIR)" "$$libraries" > $$own/watchfloor.pth
	@for name in nats-server ray; do ln -sf $(BIN)/$$name .venv-peers/bin/$$name; done
	@touch $@

docs: $(DEV_STAMP) ## Write again what is generated from the code: .env.example, docs/openapi.json
	python -m serve_apps.env_example > .env.example
	python -m serve_apps.openapi > docs/openapi.json

page: $(DEV_STAMP) ## Check the page's modules; it has no build step
	@for file in $$(find serve_apps/page -name '*.js'); do node --check --input-type=module < $$file; done; echo "page: fine"

lock: $(DEV_STAMP) ## Pin the versions that are installed now in requirements.lock
	@{ sed -n '/^#/p' requirements.lock; pip freeze --all --exclude-editable \
	  | grep -viE '^(#|pip|setuptools|watchfloor)\b' | sed -E 's/\+[a-z0-9.]+$$//'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock

clean: ## Remove caches and what was built; .venv and the floor's data stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(PACKAGES) tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; say which one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

$(STAMP): .venv/bin/python
	@echo "Installing into .venv: about 110 packages, 0.5 GB to fetch and 1.7 GB on disk with a CPU build of torch;"
	@echo "on Linux PyPI's torch is the CUDA build, about 3 GB more to fetch. For the CPU build let pip know of a"
	@echo "source that has it (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS). It takes 2 to 10 minutes, once."
	@begun=$$(date +%s); \
	  python -m pip install --quiet --prefer-binary -c requirements.lock -e . ; \
	  echo "installed in $$(( $$(date +%s) - begun )) s"
	@rm -f .venv/.setup-[0-9]*; touch $@

$(DEV_STAMP): $(STAMP)
	@echo "Installing what the checks and tests need: about 35 packages, 0.2 GB."
	@python -m pip install --quiet --prefer-binary -c requirements.lock -e '.[dev]'
	@rm -f .venv/.setup-dev-*; touch $@

# The official SDK, run by Node against the gateway; the lock file names no host.
tests/sdk/node_modules/.stamp: $(DEV_STAMP) $(wildcard tests/sdk/package-lock.json)
	@if [ -e tests/sdk/package-lock.json ]; then cd tests/sdk && npm ci --silent --no-audit --no-fund; fi
	@mkdir -p $(@D); touch $@

# Programs that tests want and pip cannot bring. Without them those tests are left out, and pytest says so.
setup-system:
	@missing=""; \
	  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || missing="$$missing chromium"; \
	  { command -v mosquitto || [ -x /usr/sbin/mosquitto ]; } >/dev/null || missing="$$missing mosquitto"; \
	  { command -v postgres || ls /usr/lib/postgresql/*/bin/postgres; } >/dev/null 2>&1 || missing="$$missing postgresql"; \
	  command -v prometheus >/dev/null || missing="$$missing prometheus"; \
	  command -v prometheus-alertmanager >/dev/null || missing="$$missing prometheus-alertmanager"; \
	  if [ -z "$$missing" ]; then exit 0; fi; \
	  if [ "$$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then \
	    echo "Installing Debian's$$missing for the tests"; \
	    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	  else \
	    echo "Not installed, so some tests are left out:$$missing. On Debian: sudo apt-get install$$missing"; \
	  fi
