# Everything that is done with this repository more than once. `make help` lists it.
export CARGO_TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
TARGET := $(CARGO_TARGET_DIR)

# The same cargo command lines everywhere: another set of packages or targets means other features, and everything is built again.
ALL := --workspace --all-targets

.DEFAULT_GOAL := help
.PHONY: help demo test test-tools test-build test-python test-postgres test-page test-rust bench bench-tracking bench-trees bench-serving fmt lint clean

help: ## Show this
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: ## Play a year of flights through the whole loop: make demo ARGS="--exit --json"
	cargo build --release -p tidemill
	$(TARGET)/release/tidemill demo $(ARGS)

# What a failure costs least to find comes first; nextest comes last, so that its summary closes the output.
test: ## Install what the tests need, check, build, and run all tests
	$(MAKE) --no-print-directory test-tools
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory test-build
	$(MAKE) --no-print-directory test-python
	$(MAKE) --no-print-directory test-postgres
	$(MAKE) --no-print-directory test-page
	$(MAKE) --no-print-directory test-rust

test-tools:
	scripts/test-tools.sh

test-build:
	cargo build $(ALL)

test-python: ## Real Python clients against the binary
	cd tests/clients && TIDEMILL_BIN=$(TARGET)/debug/tidemill ../../scripts/with-postgres.sh \
	    "$$(../../scripts/test-venv.sh)/bin/python" -m pytest -q -p no:cacheprovider .

# The same build as all other tests, so nothing is compiled twice.
test-postgres: ## The store's tests on a real PostgreSQL server
	scripts/with-postgres.sh cargo nextest run --workspace -E 'package(tidemill-store)'

test-page: ## The page in Chromium, against its fixture and against a real server
	cd tests/ui && npm test
	scripts/test-page-on-server.sh

test-rust: ## Documentation tests, then everything else
	cargo test --doc --workspace
	TIDEMILL_PYTHON="$$(scripts/test-venv.sh)/bin/python" ORT_DYLIB_PATH="$$(scripts/onnxruntime.sh)" cargo nextest run --workspace

bench: ## Measure: the year's replay and what it earned, memory, start
	cargo build --release -p tidemill
	benches/run.sh $(ARGS)

bench-tracking: ## Measure tracking beside a stock MLflow server
	cargo build --release -p tidemill
	python3 benches/tracking.py $(TARGET)/release/tidemill "$$(scripts/test-venv.sh)/bin/mlflow" $(ARGS)

# Cargo names the compiled bench in its messages.
bench-trees: ## Measure tree models on one core beside ONNX Runtime
	"$$(scripts/test-venv.sh)/bin/python" benches/trees.py "$$(cargo build --release -p tidemill-models --bench trees \
	    --message-format json | sed -n 's/.*"executable":"\([^"]*trees-[^"]*\)".*/\1/p')" $(ARGS)

bench-serving: ## Measure serving beside a bare server, Triton and BentoML
	cargo build --release -p tidemill
	cargo build --release -p tidemill-api --example bare_echo
	"$$(scripts/test-venv.sh)/bin/python" benches/serving/bench.py $(TARGET)/release/tidemill $(TARGET)/release/examples/bare_echo \
	    "$$(scripts/test-venv.sh)/bin/python" "$$(scripts/onnxruntime.sh)" "$$(scripts/bench-peers.sh)" "$$(scripts/perf-analyzer.sh)" $(ARGS)

fmt: ## Format the code
	cargo fmt --all

lint: ## Check format and lints
	cargo fmt --all -- --check
	cargo clippy $(ALL) -- -D warnings

clean: ## Remove what was built here, and the example's data
	cargo clean
	rm -rf tests/ui/node_modules examples/*/tidemill-data
