PYTHON ?= $(shell command -v python3.11 || command -v python3)
PROFILE ?= smoke
SEEDS ?= 0
BIN := .venv/bin
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.PHONY: reports test lab notebooks student bench setup
.DEFAULT_GOAL := reports

reports: setup         ## run every notebook headlessly and fill reports/
	$(BIN)/python -m lib.notebook report --profile $(PROFILE) --seeds $(SEEDS) -- $(NOTEBOOKS)

test: setup            ## every notebook under nbval, and the test suite
	$(BIN)/ruff check lib tests
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --nbval-lax $(NOTEBOOKS) tests

lab: setup             ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

notebooks: setup       ## run every notebook and store it with its outputs
	$(BIN)/python -m lib.notebook store $(NOTEBOOKS)

student: setup         ## copies without solutions in student/
	$(BIN)/python -m lib.notebook student $(NOTEBOOKS)

bench: setup           ## the speed figures of the README
	$(BIN)/python tests/benchmarks/bench_retrieval.py
	$(BIN)/python tests/benchmarks/bench_training.py
	$(BIN)/python tests/benchmarks/bench_pointer.py
	$(BIN)/python tests/benchmarks/bench_beam.py
	$(BIN)/python tests/benchmarks/bench_ocr.py
	$(BIN)/python tests/benchmarks/bench_products.py
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python tests/benchmarks/bench_cider.py
	$(BIN)/python tests/benchmarks/bench_crf.py
	$(BIN)/python tests/benchmarks/bench_buckets.py --posts 640

setup: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --progress-bar off --editable '.[test]'
	touch $@
