# From a fresh clone, with Python >= 3.11, git and make:
#   make demo                                simulate a tissue, fit, write the results, draw
#   make demo DATA=my.zarr TABLE=table       the same on your own SpatialData store
#   make test                                the whole test suite
#   make bench                               measure against scvi-tools (see benchmarks/README.md)
#   make lint | docs | venv | clean
#
# PYTHON chooses the interpreter, VENV the folder of the environment, GROUPS what is installed beside the package,
# CONSTRAINTS the file of versions: by default the known-good set for the interpreter.

PYTHON ?= python3
VENV ?= .venv
GROUPS ?= test notebook doc dev
CONSTRAINTS ?=
DATA ?=
TABLE ?=
DEMO_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
# scvi-tools gets an environment of its own.
PEER_PYTHON ?= python3.11
PEER_VENV ?= .venv-scvi

bin := $(VENV)/bin
# Named after the groups, so that asking for more of them installs more.
stamp := $(VENV)/installed-$(subst $() $(),-,$(sort $(GROUPS)))
known_good = $$($(bin)/python -c 'import sys; print("constraints-latest.txt" if sys.version_info >= (3, 12) else "constraints.txt")')

.DELETE_ON_ERROR:
.PHONY: venv test lint docs demo bench clean

venv: $(stamp)

$(stamp): pyproject.toml constraints.txt constraints-latest.txt $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "resolvi_sd needs Python 3.11 or later; choose one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(bin)/python || $(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --upgrade pip
	$(bin)/python -m pip install --quiet --constraint $(or $(CONSTRAINTS),$(known_good)) --editable . $(addprefix --group ,$(GROUPS))
	touch $@

# As many processes as cores, a file of tests in one of them. Threads of several that wait for each other would take the
# cores from those that work, so torch gets one; two of numba's wait asleep, and test what is done in parts.
test: $(stamp)
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE $(bin)/python -m pytest \
	  --numprocesses auto --maxprocesses 8 --dist loadfile $(PYTEST_ARGS)

lint: $(stamp)
	$(bin)/python -m ruff check
	$(bin)/python -m ruff format --check
	$(bin)/python -m mypy

docs: $(stamp)
	$(bin)/python -m sphinx -W --keep-going -b html docs docs/_build/html

demo: $(stamp)
	$(bin)/python -m resolvi_sd.demo $(if $(DATA),--data "$(DATA)") $(if $(TABLE),--table "$(TABLE)") $(DEMO_ARGS)

bench: $(stamp) $(PEER_VENV)/installed
	$(bin)/python benchmarks/run.py --peer-python $(PEER_VENV)/bin/python $(BENCH_ARGS)

$(PEER_VENV)/installed: benchmarks/requirements-scvi.txt
	@$(PEER_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "scvi-tools needs Python 3.11 here; choose one with: make bench PEER_PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(PEER_VENV)/bin/python || $(PEER_PYTHON) -m venv $(PEER_VENV)
	$(PEER_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(PEER_VENV)/bin/python -m pip install --quiet --requirement $<
	touch $@

clean:
	rm -rf docs/_build docs/generated demo_output .mypy_cache .numba_cache .pytest_cache .ruff_cache
