# Everything runs in .venv, made from the pinned lock. `make table4` and `make test` are all a new user needs.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

.PHONY: table4 all test test-all types unit test-lowest fuzz coverage bench gpu-check docs slurm format lock clean rulegraph

table4: .venv/ready
	snakemake --cores all reports/table4.md
	@echo; echo "Done: reports/table4.md. Settings: params.yaml. Everything else: make all"

all: .venv/ready
	snakemake --cores all

PYTEST := -m pytest --dist loadfile --no-loadscope-reorder --numprocesses
WORKERS := $$(python -c "import os; print(min(os.cpu_count(), 4) + 1)")
SMOKE := tests/pipeline/test_smoke.py

# Linters, unit tests and a smoke test of the pipeline: five minutes on two fast cores.
test: .venv/ready
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	@$(MAKE) --no-print-directory --jobs 2 types unit  # side by side, as mypy uses one core

types: .venv/ready
	mypy

unit: .venv/ready
	python $(PYTEST) $(WORKERS) $(SMOKE) tests/unit

# And everything else: the pipeline with the real engines, the site in Chromium, a real Slurm. Two processes more than there
# are cores, as much of that is waiting, for Slurm most of all: it comes first.
test-all: test
	@if command -v slurmctld >/dev/null; then $(MAKE) --no-print-directory .venv/slurm; fi
	python $(PYTEST) $$(($(WORKERS) + 1)) --ignore $(SMOKE) tests/cluster tests/browser tests/pipeline

# The unit tests with the oldest versions that pyproject.toml allows: Python 3.11 or 3.12, 8 GB of disk.
test-lowest: .venv/lowest/ready
	PATH="$(CURDIR)/.venv/lowest/bin:$$PATH" python $(PYTEST) $(WORKERS) tests/unit

# An environment of its own. Without --no-config, uv would take the torch that is pinned for the lock.
.venv/lowest/ready: pyproject.toml
	$(PYTHON) -m venv --clear .venv/lowest
	.venv/lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv/lowest/bin/uv pip install --quiet --no-config --resolution lowest-direct --python .venv/lowest/bin/python \
		--editable '.[dev]'
	touch $@

# The property tests on many fresh examples. It prints the seed, with which it can be repeated.
EXAMPLES ?= 1000
SEED ?= $(shell date +%s)
fuzz: .venv/ready
	@echo "To repeat this run: make fuzz SEED=$(SEED) EXAMPLES=$(EXAMPLES)"
	EXAMPLES=$(EXAMPLES) python $(PYTEST) $(WORKERS) -m hypothesis --hypothesis-profile fuzz --hypothesis-seed $(SEED) tests

# Lines and branches of src/classroom that the tests of `make test` run, in whichever process.
coverage: .venv/ready
	coverage erase
	coverage run $(PYTEST) $(WORKERS) $(SMOKE) tests/unit
	coverage combine --quiet
	coverage report

# For a cluster: Snakemake's SLURM plugin, then see docs/getting-started/clusters.md.
slurm: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[slurm]'

# For the tests: the same outside the environment, as it slows every start of Snakemake where Slurm is half installed.
.venv/slurm: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $@ \
		$$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['slurm'])")
	touch $@

# Speed next to the limits and other libraries: bench/results.md. Half an hour on two cores.
bench: .venv/bench
	PYTHONPATH=$(CURDIR):$(CURDIR)/.venv/bench python -m bench.run

# What only a GPU can show, in at most eight minutes on one: tests, then bench/gpu.md.
gpu-check: .venv/ready
	python -m pytest -q tests/gpu
	PYTHONPATH=$(CURDIR) timeout 360 python -m bench.gpu

# Outside the environment, so that its lock knows nothing of what is only compared with.
.venv/bench: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $@ \
		$$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['bench'])")
	touch $@

# The site, to site/index.html, with the reference pages that the code itself writes. A warning or a broken link ends it.
docs: .venv/docs/ready
	python docs/reference.py
	PYTHONPATH=$(CURDIR)/docs:$(CURDIR)/.venv/docs python -m zensical build --clean --strict
	python docs/check.py site
	@echo; echo "Done: site/index.html"

# Outside the environment too, as only writers need it.
.venv/docs/ready: .venv/ready pyproject.toml
	rm -rf .venv/docs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --target .venv/docs \
		$$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'])")
	touch $@

format: .venv/ready
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

# A stamp, so that set-up is skipped when the lock has not changed and repeated when it broke half-way.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ". Run: make PYTHON=python3.12")'
	@echo "Setting up .venv, once: the packages of requirements.lock, which takes some minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# After a change of pyproject.toml, which names the tested pair of torch and torchvision.
lock: .venv/ready
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-header --no-emit-index-url \
		--no-annotate --upgrade pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv .snakemake .classroom logs

# The picture in docs/explanation/engines.md, without the arrows that others imply; needs Graphviz.
rulegraph: .venv/ready
	snakemake --rulegraph dot 2>/dev/null | sed 's/snakemake_dag {/& rankdir=LR;/' | grep -v '"all"\|-> 0' \
		| tred | dot -Tsvg -o docs/images/rulegraph.svg
