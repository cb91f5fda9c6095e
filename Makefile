# Vigía's entry points. Nothing but Python 3.11+ and make is needed: no Docker, no root.

PYTHON ?= python3
VENV ?= .venv
VIGIA_VAR ?= var
PYTEST_ARGS ?=
ARGS ?= help

# Relative to this directory, whose path may hold anything (spaces, quotes); every use of it is quoted.
BIN := $(VENV)/bin
# The tests have a database and a broker of their own; `--reuse` lets the steps of one `make test` share them.
TEST_VAR ?= $(VIGIA_VAR)/test
TEST_STACK = VIGIA_VAR="$(TEST_VAR)" "$(BIN)/python" -m local.stack --reuse --
STACK = "$(BIN)/python" -m local.stack --reuse --

export VIGIA_VAR TEST_VAR
# Bytecode is kept for the next interpreter, also where the environment says otherwise (in containers it often
# does): reading all sources anew takes each of them most of a second, and the tests start two hundred.
export PYTHONDONTWRITEBYTECODE =
.DEFAULT_GOAL := help
.PHONY: help run test lint format static types contracts migrations-check deploy-check unit unit-rest unit-log unit-library unit-processes test-jobs test-models models-graphs models-packages test-clients faults schemathesis backup-s3 backup-kills containers containers-long wheels openapi bench bench-batch bench-growth bench-start bench-micro bench-memory bench-movies bench-rollups soak drift-simulation manage shell install install-dev clean

help: ## This list
	@echo "make TARGET [VENV=.venv] [VIGIA_VAR=var] [PORT=8000] [PYTHON=python3]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: install ## Start Vigía on http://127.0.0.1:8000 (Ctrl-C stops it)
	@exec "$(BIN)/python" -m local.run

test: lint contracts ## Every check that needs no Docker: lint, types, contracts, migrations, tests
	@$(TEST_STACK) $(MAKE) --no-print-directory -j2 --output-sync=target static unit

static: types migrations-check deploy-check

lint: install-dev ## Style and format
	"$(BIN)/ruff" check
	"$(BIN)/ruff" format --check

types: install-dev ## Static types (mypy's Django plugin loads the settings, and they want the stack)
	@$(TEST_STACK) mypy

contracts: install-dev ## Who may import whom
	"$(BIN)/lint-imports"

migrations-check: install-dev ## No model change without its migration
	@$(TEST_STACK) python manage.py makemigrations --check --dry-run

deploy-check: install-dev ## Django's deployment checks, with the settings a server has
	@VIGIA_LOCAL=0 ARTIFACT_KEY=one-of-its-own-because-a-server-has-two-secrets $(TEST_STACK) python manage.py check --deploy --fail-level WARNING

# Four groups side by side, each with a stack of its own: some of them wait while others compute.
PROCESS_TESTS = tests/e2e tests/local tests/browser
LOG_TESTS = tests/predictions tests/web tests/config tests/test_start.py
# Long trials of what comes from elsewhere: `make test-models` does them.
GRAPH_TESTS = $(addprefix tests/vigia_ml/,sandbox engines/test_boosters.py engines/test_graph_check.py engines/test_graph_trial.py)
PACKAGE_TESTS = tests/vigia_ml/importing tests/vigia_ml/pushing tests/training/management/test_import_model.py \
	tests/training/runs/test_pushes.py tests/training/runs/test_pushed_versions.py tests/training/views/test_pushes.py
# Batches, exports, events and backups, whose processes are killed on the way: `make test-jobs` does them.
JOB_TESTS = tests/predictions/batches tests/predictions/exports tests/core/events tests/backups
# What other programs send: `make test-clients` does them.
CLIENT_TESTS = tests/clients tests/web/protocols tests/test_schemathesis.py
ignored = $(foreach path,$(1),--ignore=$(path))
ONE_THREAD = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
GROUP_STACK = $(ONE_THREAD) DATABASE_URL= REDIS_URL= VIGIA_VAR="$(TEST_VAR)/$@" "$(BIN)/python" -m local.stack --reuse --

ifeq ($(strip $(PYTEST_ARGS)),)
unit: install-dev ## The tests (PYTEST_ARGS="-k drift")
	@$(MAKE) --no-print-directory -j4 --output-sync=target unit-processes unit-log unit-library unit-rest
else
unit: install-dev
	@$(ONE_THREAD) $(TEST_STACK) pytest $(PYTEST_ARGS)
endif

unit-rest:
	@$(GROUP_STACK) pytest $(call ignored,$(PROCESS_TESTS) $(LOG_TESTS) $(PACKAGE_TESTS) $(JOB_TESTS) $(CLIENT_TESTS) tests/vigia_ml)

unit-library:
	@$(GROUP_STACK) pytest tests/vigia_ml $(call ignored,$(GRAPH_TESTS) $(PACKAGE_TESTS))

unit-log:
	@$(GROUP_STACK) pytest $(LOG_TESTS) $(call ignored,$(JOB_TESTS) $(CLIENT_TESTS))

unit-processes:
	@$(GROUP_STACK) pytest $(PROCESS_TESTS)

test-jobs: install-dev ## Batches, exports, events and backups, whose processes are killed on the way
	@$(GROUP_STACK) pytest $(JOB_TESTS)

test-models: install-dev ## Trials of graphs, boosters, packages and pickles from elsewhere (some minutes)
	@$(MAKE) --no-print-directory -j2 --output-sync=target models-graphs models-packages

models-graphs:
	@$(GROUP_STACK) pytest $(GRAPH_TESTS)

models-packages:
	@$(GROUP_STACK) pytest $(PACKAGE_TESTS)

# The clients have packages of other versions than Vigía's; their environments below VIGIA_VAR stay.
CLIENTS = $(VIGIA_VAR)/clients

test-clients: install-dev ## Clients of other servers (tritonclient, kserve, mlflow), schemathesis, random requests of their protocols
	$(call client_environment,v2)
	$(call client_environment,mlflow)
	@VIGIA_CLIENTS="$$(cd "$(CLIENTS)" && pwd)" $(GROUP_STACK) pytest $(CLIENT_TESTS)

define client_environment
@cmp -s tests/clients/requirements-$(1).txt "$(CLIENTS)/$(1)/requirements-$(1).txt" && \
	test -x "$(CLIENTS)/$(1)/bin/python" || \
	"$(PYTHON)" -m local.install "$(CLIENTS)/$(1)" tests/clients/requirements-$(1).txt
endef

faults: install-dev ## Kills processes and servers under runs, pushes, batches and events (FAULT_SEEDS=20 EVENT_KILLS=100)
	@FAULT_SEEDS=$${FAULT_SEEDS:-20} $(TEST_STACK) pytest -q tests/e2e/test_faults.py
	@PUSH_KILLS=all $(TEST_STACK) pytest -q tests/training/runs/test_pushes.py -k killed
	@BATCH_KILLS=all $(TEST_STACK) pytest -q tests/predictions/batches/test_crashes.py
	@EVENT_KILLS=$${EVENT_KILLS:-100} EVENT_ACTIVATIONS=$${EVENT_ACTIVATIONS:-1000} \
		$(TEST_STACK) pytest -q -s tests/core/events/test_kills.py
	@EVENT_FREEZES=$${EVENT_FREEZES:-100} $(TEST_STACK) pytest -q -s tests/core/events/test_freezes.py

schemathesis: install-dev ## Asks a server everything its OpenAPI document allows (SCHEMATHESIS_EXAMPLES=100 SCHEMATHESIS_SEED=1)
	@SCHEMATHESIS_EXAMPLES=$${SCHEMATHESIS_EXAMPLES:-100} $(TEST_STACK) pytest -q tests/test_schemathesis.py

# moto has 300 MB of packages, some of them in other versions than the tests'.
backup-s3: install-dev ## Backups in S3-compatible storage, against moto's server in a separate environment
	@test -x "$(VIGIA_VAR)/moto/bin/moto_server" || { "$(PYTHON)" -m venv "$(VIGIA_VAR)/moto" && \
		"$(VIGIA_VAR)/moto/bin/pip" install --quiet --disable-pip-version-check 'moto[server,s3]==5.2.5'; }
	@"$(VIGIA_VAR)/moto/bin/moto_server" -H 127.0.0.1 -p 5055 >"$(VIGIA_VAR)/moto/log" 2>&1 & server=$$!; \
		trap 'kill $$server' EXIT; sleep 5; \
		S3_ENDPOINT=http://127.0.0.1:5055 $(TEST_STACK) pytest -q tests/backups/test_s3.py

backup-kills: install-dev ## Kills backups and restores at random moments (KILL_TIMES=10)
	@KILL_TIMES=$${KILL_TIMES:-10} $(TEST_STACK) pytest -q tests/backups/test_backup_and_restore.py -k killed

format: install-dev ## Rewrite to the house format
	"$(BIN)/ruff" check --fix
	"$(BIN)/ruff" format

containers: ## Build, start, use, kill, scale, save and upgrade the containers on a Docker Engine (DOCKER=docker)
	@docker/check.sh

containers-long: ## The same, an upgrade from version 0.1.0, the slim image, and make run without a compiler
	@docker/check.sh --long

wheels: install-dev ## Ask the package index for the wheels of all pins, into requirements-wheels.json
	@"$(BIN)/python" -m tools.wheels

openapi: install-dev ## Write docs/openapi.yaml anew
	@$(TEST_STACK) python manage.py spectacular --validate --fail-on-warn --file docs/openapi.yaml

bench: install ## Vigía and other servers side by side, into docs/performance.md (BENCH_SECONDS=4 BENCH_ROUNDS=3)
	$(bench_tools)
	@VENV="$(VENV)" exec bench/.venv/bin/python -m bench

bench-batch: install ## A batch of millions of rows whose processes are killed on the way (BATCH_ROWS=10000000; Linux)
	@VENV="$(VENV)" exec "$(BIN)/python" -m bench.batch_kills

bench-growth: install ## What a request costs beside a large log, many versions, many keys (GROWTH_ROWS=10000000)
	$(bench_tools)
	@VENV="$(VENV)" exec bench/.venv/bin/python -m bench.growth

bench-start: install ## How soon a web process answers, and how large it is (START_RUNS=5)
	$(bench_tools)
	@VENV="$(VENV)" exec bench/.venv/bin/python -m bench.start

# The settings of `make test` do not hold here: warnings are no failures, and only bench/micro is collected.
bench-micro: install-dev ## What single steps of an answer cost (PYTEST_ARGS="-k writer")
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(TEST_STACK) pytest -o addopts= -o filterwarnings=default \
		--benchmark-columns=min,median,iqr,rounds --benchmark-group-by=group --benchmark-sort=min \
		--benchmark-warmup=on --benchmark-max-time=0.5 $(PYTEST_ARGS) bench/micro

bench-memory: install ## How much memory a training run of a million rows takes (MEMORY_ROWS=1000000; Linux)
	@OMP_NUM_THREADS=1 "$(BIN)/python" -m bench.memory

bench-movies: install ## An index of very many movies, built and asked, into docs/performance.md (MOVIES=1000000; Linux)
	@exec "$(BIN)/python" -m bench.index

soak: install ## Memory of every process under a mixed load, into docs/performance.md (MINUTES=10; Linux)
	@VENV="$(VENV)" MINUTES=$(or $(MINUTES),10) exec "$(BIN)/python" -m bench.soak

drift-simulation: install ## False alarms of a drift review, and what it finds, into docs/drift.md (DRIFT_REPETITIONS=2000)
	@OMP_NUM_THREADS=1 "$(BIN)/python" -m bench.drift_simulation

bench-rollups: install ## Counting a large log into rollups, and reading a window of them (ROLLUP_ROWS=10000000; Linux)
	@VENV="$(VENV)" exec "$(BIN)/python" -m bench.rollups

define bench_tools
@command -v wrk >/dev/null || { echo "make $@ needs wrk, the load generator: apt install wrk, or brew install wrk" >&2; exit 1; }
@$(MAKE) --no-print-directory bench/.venv/requirements.txt
endef

# The peers' environment, apart from Vigía's own; the model servers get one each, made by bench itself.
bench/.venv/requirements.txt: bench/requirements.txt
	@echo "Installing the peers into bench/.venv (the first time takes a minute) ..."
	@"$(PYTHON)" -m venv bench/.venv
	@bench/.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input -r bench/requirements.txt
	@cp bench/requirements.txt $@

manage: install ## A command of manage.py (ARGS="load_dataset churn file.csv --train")
	@$(STACK) python manage.py $(ARGS)

shell: ARGS = shell
shell: manage ## Django's shell, on the running stack or on its own

# pip only runs when the pinned file differs from the copy kept in the environment, made after the last success.
install: ## The environment of `make run`
	$(call pinned,requirements-local.txt)

install-dev: ## The environment of `make test`
	$(call pinned,requirements-dev.txt,--compile)

define pinned
@cmp -s $(1) "$(VENV)/$(1)" && test -x "$(BIN)/python" || "$(PYTHON)" -m local.install "$(VENV)" $(1) $(2)
endef

clean: ## Remove the environment and the caches; the data in var stays
	rm -rf "$(VENV)" .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './var/*' -prune -exec rm -rf {} +
