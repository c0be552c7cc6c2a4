# The short names of what scripts/ does. `make check` needs what scripts/test installs.
PYTHON := .venv/bin
SHELL_FILES := $(shell shfmt -f scripts .ci tests deploy install.sh 2>/dev/null)

.PHONY: check format unit test fuzz e2e demo bench

check:
	$(PYTHON)/ruff format --check .
	$(PYTHON)/ruff check .
	$(PYTHON)/mypy
	$(PYTHON)/lint-imports
	shellcheck -x $(SHELL_FILES)
	shfmt -d $(SHELL_FILES)

format:
	$(PYTHON)/ruff format .
	$(PYTHON)/ruff check --fix .
	shfmt -w $(SHELL_FILES)

unit:
	$(PYTHON)/pytest -q tests/unit

test:
	scripts/test

fuzz:
	scripts/fuzz

e2e:
	scripts/test e2e

demo:
	scripts/demo

bench:
	scripts/bench
