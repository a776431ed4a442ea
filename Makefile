# `make demo` and `make test` set up what they need in .venv; nothing is installed outside it but Debian's
# cross-compilers and emulator, where apt may be used.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEBIAN_TOOLS := gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-user qemu-system-arm

.PHONY: setup demo check test tools lint clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch  # the pinned CPU build first: a looser pin pulls CUDA packages
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[torch,dev]'
	touch $@

tools:  ## cross-compilers and the emulator, from Debian's packages
	@sh boards/install_tools.sh $(DEBIAN_TOOLS)

demo: $(READY)
	$(MAKE) tools
	$(BIN)/python examples/digits/make_digits.py build/demo
	cd build/demo && ../../$(BIN)/nettrim-deploy --target rpi4 model.pt --test-data test.npz --force

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint  ## under a minute, before every commit
	$(BIN)/pytest -q -n 2 --dist loadscope -m 'not slow'

test: lint  ## everything; CI runs this
	$(MAKE) tools
	$(BIN)/pytest -n 2 --dist loadscope

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
