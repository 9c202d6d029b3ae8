# One word each: `make` lists them.
PYTHON ?= python3
BIN := .venv/bin
BENCHES := $(sort $(filter-out _%,$(basename $(notdir $(wildcard benchmarks/[a-z]*.py)))))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-services test-services-all check bench bundle docs docs-help $(addprefix bench-,$(BENCHES))

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-18s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## check this machine and install into .venv (nothing to do: skipped); EXTRAS=bench,vi adds parts
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or newer (Debian/Ubuntu: apt-get install python3 python3-venv)." >&2; exit 1; }
	@$(PYTHON) scripts/setup.py --extras "$(EXTRAS)"

demo: setup ## invented records to a tuned model and its report, in one command; ARGS="lang=zh" for another language
	$(BIN)/residency demo $(ARGS)

test: setup ## run the tests; ARGS="-k name" for some of them
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: setup ## the tests that need no training, no server and no big sample
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile --hypothesis-profile fast -m "not (training or server or sample or data or services)" $(ARGS)

test-services: setup ## tests on real PostgreSQL, MariaDB, Redis and Chromium (Debian packages, installed where missing)
	HF_HUB_OFFLINE=1 $(BIN)/python scripts/services.py run postgresql mariadb redis chromium -- $(BIN)/python -m pytest tests/services tests/serve/test_redis_killed.py tests/serve/test_several.py tests/flow/test_year_on_a_server.py $(ARGS)

test-services-all: setup ## test against Label Studio and other heavy services, which it installs and starts
	RESIDENCY_SERVICES=all RESIDENCY_SCREENSHOTS=.services $(BIN)/python -m pytest tests/services_all $(ARGS)

check: setup ## lint, formatting, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: ## list the subjects under benchmarks/ and what each measures; make bench-SUBJECT ARGS="MEASUREMENT ..." runs one
	@for name in $(BENCHES); do awk -v name=$$name 'NR == 1 {gsub(/"""/, ""); print "make bench-" name ": " $$0} \
		/^@measure/ {here = 1} here && /^def / {split($$2, parts, "("); sub(/_$$/, "", parts[1]); gsub(/_/, "-", parts[1]); getline; \
		gsub(/^ *"""|"""$$/, ""); printf "    %-12s %s\n", parts[1], $$0; here = 0}' benchmarks/$$name.py; done

$(addprefix bench-,$(BENCHES)): bench-%: setup
	$(BIN)/python benchmarks/$*.py $(ARGS)

bundle: setup ## everything for a machine without a network, into OUT=residency-bundle
	$(BIN)/python scripts/bundle.py $(or $(OUT),residency-bundle) $(ARGS)

docs: ## build the documentation as a site with a search, in site/; needs no network once it is installed
	@$(PYTHON) scripts/setup.py --extras docs
	$(BIN)/mkdocs build --strict --quiet

docs-help: setup ## write docs/reference anew: the command line from the program's own --help, the recipe from its schema
	$(BIN)/python scripts/write_cli_reference.py
	$(BIN)/python scripts/write_recipe_reference.py
