# make run: the main job. make test: the whole suite. Both make .venv and install first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STUDIO ?= examples/studio.yaml

.PHONY: setup run test check bench bench-live bench-transport bench-triangulation bench-engines accuracy dist clean
.DEFAULT_GOAL := run

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "posepipe needs Python 3.11 or newer, this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...")'
	@echo "posepipe: making $(VENV) and installing (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[openvino,dev]'
	@touch $@

# the networks in torch, for the tests and the type checker; make run does without
$(STAMP)-torch: $(STAMP)
	@echo "posepipe: installing torch for the tests"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train]'
	@touch $@

run: setup
	@$(BIN)/posepipe pull --for $(STUDIO)
	@$(BIN)/posepipe run $(STUDIO)

test: $(STAMP)-torch
	@for studio in studio algebraic; do $(BIN)/posepipe pull --for examples/$$studio.yaml || echo "posepipe: tests on that recording are skipped"; done
	@$(BIN)/python -m pytest

check: $(STAMP)-torch
	@$(BIN)/ruff format --check posepipe tests
	@$(BIN)/ruff check posepipe tests
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup
	@$(BIN)/posepipe bench $(STUDIO) --seconds 60

bench-live: setup
	@$(BIN)/python tests/bench/bench_live.py --seconds 20 --rounds 3

# peers beside ours where they are installed: pip install iceoryx2 flatbuffers dora-rs dora-rs-cli
bench-transport: setup
	@$(BIN)/python tests/bench/bench_transport.py

bench-triangulation: setup
	@$(BIN)/python tests/bench/bench_triangulation.py

bench-engines: setup
	@$(BIN)/python tests/bench/bench_engines.py

accuracy: setup
	@$(BIN)/python tests/bench/accuracy.py --studio examples/algebraic.yaml

# sdist -> wheel -> an empty virtual environment -> an example, away from the checkout
dist: setup
	@rm -rf dist build/dist-check
	@$(BIN)/python -m build --outdir dist . > /dev/null
	@$(PYTHON) -m venv build/dist-check
	@build/dist-check/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	@cp examples/studio.yaml build/dist-check/
	@cd build/dist-check && bin/posepipe run studio.yaml --offline --set nodes.heatmaps.engine=blazepose.full
	@rm -rf build/dist-check

clean:
	@rm -rf $(VENV) dist build out *.egg-info
