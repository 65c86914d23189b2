# The commands of the README. Each sets up what it needs in .venv and works from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SITE := $(VENV)-site
# What an extra of pyproject.toml installs.
extra = $$($(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', \
    'rb'))['project']['optional-dependencies']['$(1)'])")

.PHONY: demo demo-nli test test-gpu check format docs notebooks site wheel audit kills fuzz hostile simulation lock clean

demo: $(READY)
	$(BIN)/entailor compare --config examples/demo.yaml --out runs/demo
	@echo "The report: runs/demo/report.html"

# Needs the Hugging Face Hub, or a mirror of it (HF_ENDPOINT).
demo-nli: $(READY)
	$(BIN)/entailor compare --config examples/demo_nli.yaml
	@echo "The report: runs/demo-nli/report.html"

test: $(READY)
	$(BIN)/pytest -n auto --dist worksteal

# Every method on a pretend accelerator, device mistakes planted in our code, and on a GPU where there is one.
test-gpu: $(READY)
	$(BIN)/python -m pytest tests/gpu tests/gpu/check_whole.py -rs

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python scripts/audit.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Writes the generated pages, what the tutorials print and the notebooks of them, and builds the site.
docs: $(READY)
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/tutorial.py
	$(BIN)/python docs/notebooks.py
	$(MAKE) site

# Makes notebooks of two tutorials and runs them; what runs them stays out of .venv.
notebooks: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade --target build/notebooks $(call extra,notebooks)
	PYTHONPATH=$(CURDIR)/build/notebooks $(BIN)/python docs/notebooks.py --run

# The site, in build/site; a warning is an error. It has an environment of its own.
site: $(SITE)/.ready
	$(SITE)/bin/python docs/build_site.py

# Builds the wheel and tries it in a bare environment: help, a comparison, one sentence from Python, a served answer.
wheel: $(READY)
	$(BIN)/python scripts/try_wheel.py

# Known vulnerabilities of the locked packages; an error as well where the service does not answer.
audit: $(READY)
	$(BIN)/python scripts/audit.py --required

# The long runs behind the table of docs/guides/resilience.md. Fuzzing takes three quarters of an hour.
kills: $(READY)
	PYTHONPATH=src:. $(BIN)/python tests/long/kills.py --kills 1000 --seed 0

fuzz: $(READY)
	PYTHONPATH=src:. $(BIN)/python tests/long/fuzzing.py --inputs 1000000 --seed 0

# The corpus of hostile inputs over every command; `make test` runs one command of each.
hostile: $(READY)
	PYTHONPATH=src:. $(BIN)/python -m tests.hostile

# The tables of docs/statistics.md: how often the statistics are right where the truth is known; on two cores.
simulation: $(READY)
	PYTHONPATH=src $(BIN)/python benchmarks/simulation.py --draws 300

# Builds a clean environment from pyproject.toml and writes down what was installed.
lock:
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet hatchling editables "torch==2.13.0"
	$(VENV)-lock/bin/pip install --quiet ".[dev]"
	$(VENV)-lock/bin/pip freeze --exclude entailor | sed 's/^\(torch==[0-9.]*\)+.*/\1/' > requirements.lock
	rm -rf $(VENV)-lock

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import sys; assert sys.version_info >= (3, 11), f'Python 3.11 or newer is needed, this is {sys.version}'"
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(SITE)/.ready: pyproject.toml
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/pip install --quiet --disable-pip-version-check $(call extra,docs)
	touch $@

clean:
	rm -rf $(VENV) $(SITE) build/site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
