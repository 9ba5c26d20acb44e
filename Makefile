# One door to everything. `make` alone lists what there is.
PYTHON  ?= python3
PROFILE ?= smoke
SEED    ?= 0
ifneq ($(wildcard .venv/bin/python),)
PYTHON := .venv/bin/python
endif
BIN     := .venv/bin
LOCKS   := requirements.lock tests/oracles/requirements.lock
IMPORTED := import torch, torchvision, torch._dynamo, lightning_fabric, torchmetrics, pandas, seaborn, scipy.stats, \
  papermill, snakemake.cli, ipykernel.kernelapp, onnxruntime, onnxscript, pytest, hypothesis, jupyter_book, sphinx.application, cam_core, training, reproduce

.PHONY: help setup check data photographs book browser site pdf test cluster lint reproduce publish bench lock clean clean-all
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

# ---- set-up ---------------------------------------------------------------------------------------------------------

setup: .venv/.ready  ## create .venv from the lock (3.4 GB to download on Linux)

check:
	@missing=; install=; \
	command -v git >/dev/null || { missing="$$missing git,"; install="$$install git"; }; \
	command -v $(PYTHON) >/dev/null || { missing="$$missing Python 3.11 or newer,"; install="$$install python3 python3-venv"; }; \
	if command -v $(PYTHON) >/dev/null; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || missing="$$missing Python 3.11 or newer ($(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())')),"; \
	  $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { missing="$$missing the Python module venv with ensurepip,"; install="$$install python3-venv"; }; \
	fi; \
	test -z "$$missing" || { echo "Cannot set up: missing$${missing%,}; install with: sudo apt-get install -y$${install:- python3 python3-venv} (or name another interpreter: make setup PYTHON=python3.12)." >&2; exit 1; }

# uv comes from the lock itself; where it cannot run or finds no index, pip installs the same hashes, only slower.
.venv/.ready: $(LOCKS) pyproject.toml
	@$(MAKE) --no-print-directory check
	@test -x $(BIN)/python || { echo "Creating .venv"; $(PYTHON) -m venv .venv; }
	@rm -f $@
	@echo "Installing the locked packages (the first time about 3.4 GB to download)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check "$$(grep -o '^uv==[^ ]*' requirements.lock)" && \
	  VIRTUAL_ENV=.venv $(BIN)/uv pip sync --require-hashes $(LOCKS) || { echo "uv did not succeed; going on with pip"; \
	  $(BIN)/python -m pip install --disable-pip-version-check --no-deps --require-hashes $(LOCKS:%=-r %); }
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@echo "Importing once, which compiles what every later run loads"
	@env -u PYTHONDONTWRITEBYTECODE ORT_DISABLE_TELEMETRY=1 $(BIN)/python -c '$(IMPORTED); print(f"Ready: torch {torch.__version__}, torchvision {torchvision.__version__}")'
	@touch $@

# ---- the two commands -----------------------------------------------------------------------------------------------

data: .venv/.ready  ## draw the embedded data sets (done once; draw knows whether its code changed)
	$(BIN)/python -m data_scripts.draw --out data/drawn --seed $(SEED)

photographs: .venv/.ready  ## photographs from the installed packages, explained through EfficientNet-Lite0
	$(BIN)/python book/photographs.py

book: .venv/.ready data photographs  ## draw the data, run the four notebooks, explain photographs, build and check the book
	@$(BIN)/python -m reproduce batch --profile smoke; code=$$?; test $$code -le 1 || exit $$code; \
	$(BIN)/python book/assemble.py --profile smoke && exit $$code  # a run that failed has a page that says so, and make an error

browser: .venv/.ready  ## open every page of the built book in Chromium: desk, phone, dark, print, axe
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadgroup tests/browser

site: book browser  ## what is published: the book, built and looked at in a browser

pdf: .venv/.ready  ## the built book as one file, build/book.pdf
	$(BIN)/python book/print_site.py _site/html build/book.pdf

test: .venv/.ready data  ## pytest, then the notebooks cell by cell with tiny parameters
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --ignore tests/cluster
	$(BIN)/python tests/tiny_notebooks.py build/tiny
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --override-ini addopts= -q --nbval-lax --nbval-current-env --nbval-cell-timeout 600 build/tiny

cluster: .venv/.ready  ## trainings of two processes, and the batch on a real Slurm of one node, where Slurm is installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/cluster

lint: .venv/.ready  ## ruff (rules and format), mypy on cam_core, training and reproduce
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# ---- more -----------------------------------------------------------------------------------------------------------

reproduce: .venv/.ready data  ## run a profile: make reproduce PROFILE=subset (needs CAM_DATA, CAM_WEIGHTS)
	$(BIN)/python -m reproduce batch --profile $(PROFILE)

publish: .venv/.ready  ## copy a profile's numbers from runs/ to results/
	$(BIN)/python -m reproduce publish --profile $(PROFILE)
	$(BIN)/python book/headline.py

bench: .venv/.ready  ## our speed beside grad-cam, TorchCAM, Quantus and OpenCV (needs an idle machine)
	$(BIN)/python -m benchmarks.methods
	$(BIN)/python -m benchmarks.metrics
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.data
	$(BIN)/python -m benchmarks.goals --no-race
	$(BIN)/python -m benchmarks.batch --smoke

lock: .venv/.ready  ## compile the locks anew from pyproject.toml
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --all-extras pyproject.toml -o requirements.lock
	cd tests/oracles && ../../$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-deps --no-emit-index-url --no-header requirements.in -o requirements.lock

clean:  ## remove what was built (book, caches, tiny notebooks); runs and data stay
	rm -rf _site build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

clean-all: clean  ## clean, and remove .venv, data/drawn and runs as well
	rm -rf .venv runs data/drawn *.egg-info
