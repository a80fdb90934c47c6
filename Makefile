# Each target works alone right after a clone, given Python 3.11 and pip.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Real photos for the score, where they lie beside the checkout.
PHOTOS := $(if $(wildcard ../shared/cases),--photos ../shared/cases)

export PYTHONHASHSEED := 0

.PHONY: setup demo test test-full gate check format lint type contracts docs docs-check bench checkpoints networks web web-check wheel clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "Python 3.11 with venv is needed; name yours with: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/deploykit demo --output-dir demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2

test-full: $(STAMP)
	$(BIN)/python -m pytest -n 2 --full

check: format-check lint type contracts docs-check test gate

# The files of the bundled networks, held to deploykit.toml and gate-baseline.json.
GATED := build/gate
gate: $(STAMP)
	rm -rf $(GATED)
	$(BIN)/deploykit export sinet --target onnx --target tflite --output-dir $(GATED)
	for name in rcrnet portraitnet mobilenetv3-sappm elb; do \
	  $(BIN)/deploykit export $$name --target onnx --output-dir $(GATED) || exit; done
	$(BIN)/deploykit gate --output-dir $(GATED) --samples 8 --clips 1 --max-seconds 10

.PHONY: format-check
format-check: $(STAMP)
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet . || true

lint: $(STAMP)
	$(BIN)/ruff check .

type: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports --no-logo

docs: $(STAMP)
	$(BIN)/python docs/generate.py

docs-check: $(STAMP)
	$(BIN)/python docs/generate.py --check

bench: $(STAMP)
	$(BIN)/deploykit bench

# About half an hour for each network on one CPU thread; a GPU is used where there is one.
checkpoints: $(STAMP)
	$(BIN)/python -m deploykit.training --threads 1 $(PHOTOS)

networks: $(STAMP)
	$(BIN)/python benchmarks/network_costs.py
	$(BIN)/python benchmarks/networks.py
	$(BIN)/python docs/generate.py

# The page, and beside it the WebAssembly runtimes, which stay out of git. Needs Node.js 20 or later.
web: web/node_modules/.package-lock.json
	cd web && npm run --silent types && npm run --silent page && npm run --silent runtimes

web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	@command -v npm > /dev/null || { echo "Node.js 20 or later with npm is needed: https://nodejs.org" >&2; exit 2; }
	cd web && npm ci

# The committed page is what its source gives.
web-check: web/node_modules/.package-lock.json
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	(cd web && npm run --silent types && npm run --silent page -- --outDir "$$folder/page" --logLevel warn) && \
	diff -r "$$folder/page" deploykit/web/page && echo "the page is what its source gives"

wheel: $(STAMP)
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf build dist demo artifacts .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find deploykit tests -name __pycache__ -type d -prune -exec rm -rf {} +
