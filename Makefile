# Every target needs only Python 3.11+ and make; the virtual environment is made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test test-postgres interop bench lint format check generate lock clean crash soak fuzz audit

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else "barkd-py needs Python 3.11, 3.12 or 3.13; this is %d.%d. Name another: make PYTHON=python3.12" % v[:2])'
	@echo "Installing barkd-py and its dependencies into $(VENV) (once, about a minute) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip setuptools
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: $(STAMP)  ## a whole regtest with two wallets that pay each other
	@$(BIN)/python -m barkd_py.devnet.tour

test: $(STAMP)  ## every hermetic test
	$(BIN)/python -m pytest -n 4 --dist loadfile -m 'not interop and not bench'

test-postgres: $(STAMP)  ## every flow with its wallets in PostgreSQL; some of them are in `make test`
	BARKD_TEST_STORE=postgresql $(BIN)/python -m pytest -n 4 --dist loadfile tests/wallet/flows

interop: $(STAMP)  ## against the real bark wallet and a real bitcoind
	tests/interop/run

bench: $(STAMP)  ## figures, not assertions
	$(BIN)/python -m tests.bench

crash: $(STAMP)  ## every flow, killed at every point, and in every trouble; writes docs/reliability.md
	$(BIN)/python -m tests.crash --afresh --without-look-ups --processes $(or $(PROCESSES),2)

soak: $(STAMP)  ## 50 rounds, then random payments for MINUTES, all under random faults
	BARKD_SOAK_ROUNDS=$(or $(ROUNDS),50) $(BIN)/python -m pytest -q -s tests/wallet/flows/test_round_soak.py
	$(BIN)/python -m tests.crash.soak --minutes $(or $(MINUTES),30)

fuzz: $(STAMP)  ## every decoder for SECONDS in all, led by what the inputs reach
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3,<4'
	$(BIN)/python -m tests.faults.coverage_fuzz --seconds $(or $(SECONDS),600)

audit: $(STAMP)  ## known vulnerabilities of the dependencies
	$(BIN)/python -m tests.support.audit

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test

generate: $(STAMP)  ## rewrite what is generated and committed
	$(BIN)/python -m barkd_py.server_rpc.generate
	$(BIN)/python -m barkd_py.wallet.store.schema > schema.sql
	$(BIN)/python -m barkd_py.api.generate > openapi.json
	$(BIN)/python -m tests.support.api_examples > docs/endpoints.md

lock: $(STAMP)  ## resolve the dependencies of the image anew; nothing moves that need not, without UPGRADE=1
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8,<1'
	echo 'setuptools>=77' | $(BIN)/uv pip compile --quiet pyproject.toml - --extra postgres --extra zmq \
		--universal --python-version 3.11 --generate-hashes $(if $(UPGRADE),--upgrade) \
		--no-header --no-emit-index-url --no-emit-find-links --output-file docker/requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
