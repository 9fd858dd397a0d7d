# Everything runs in .venv, which `make setup` makes and every other target brings up to date first.
PY := .venv/bin/python
JOBS ?= auto

# Many small dense blocks: threads inside the BLAS cost more than they bring.
export OPENBLAS_NUM_THREADS ?= 1

# Tests start many processes: what one has compiled, the others need not compile again.
unexport PYTHONDONTWRITEBYTECODE

# What `make fuzz` tries: random inputs per test, and the seed they come from.
EXAMPLES ?= 5000
SEED ?= 1

.PHONY: help setup demo test test-long fuzz lint bench validate comparison docs clean

help:
	@echo "make demo        set up, fit the pig and Sitka models, show lmer's published figures beside them"
	@echo "make test        set up, run the tests and the examples in the documentation strings"
	@echo "make test-long   the tests that take many seconds each"
	@echo "make fuzz        random formulas, data, options and files: EXAMPLES=5000 of each test, from SEED=1"
	@echo "make lint        ruff and mypy"
	@echo "make bench       time against lme4 (needs R with lme4) and write benchmarks/RESULTS.md"
	@echo "make validate    compare with the stored references of R; write validation/RESULTS.md and GENERALIZED.md"
	@echo "make comparison  lmer, statsmodels and lmmsparse side by side: validation/COMPARISON.md"
	@echo "make docs        build the documentation into site/, running every Python block of it"
	@echo "make clean       remove .venv and everything that was built"

setup:
	@bash tools/setup.sh test

demo:
	@bash tools/setup.sh demo
	@.venv/bin/lmmsparse demo

test: setup
	@$(PY) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-long: setup
	@$(PY) -m pytest -n $(JOBS) --dist worksteal -m long $(ARGS)

# A test passes with its figures printed: how many inputs it tried and what became of them.
fuzz: setup
	@LMMSPARSE_FUZZ=$(EXAMPLES) $(PY) -m pytest -n $(JOBS) -rP --hypothesis-seed=$(SEED) tests/whole/test_fuzz_*.py $(ARGS)

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy --strict lmmsparse

bench: setup
	@$(PY) -m pip install --quiet -e '.[bench]' || echo "bench: the other Python packages could not be installed; going on without"
	@$(PY) benchmarks/compare.py $(ARGS)

validate: setup
	@$(PY) validation/check.py $(ARGS); linear=$$?; $(PY) validation/check_generalized.py $(ARGS) && exit $$linear

comparison: setup
	@$(PY) -m pip install --quiet --disable-pip-version-check statsmodels
	@$(PY) validation/comparison.py $(ARGS)

docs: setup
	@$(PY) -c 'import arviz, latex2mathml, marginaleffects, material, mkdocstrings, sklearn, statsmodels' 2>/dev/null || \
		$(PY) -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet $(ARGS)
	@echo "built: site/index.html (with search: $(PY) -m http.server -d site)"

clean:
	rm -rf .venv build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
