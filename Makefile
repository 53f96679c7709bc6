# webdancer: `make demo` runs the main job, `make test` the tests. Each sets up what it needs and says so.

SHELL := /bin/bash
export CARGO_TARGET_DIR ?= $(HOME)/.cache/webdancer/target
export PATH := $(HOME)/.cargo/bin:$(PATH)
# What runs and pins record as the code's version; only the command is built again when it changes.
export WEBDANCER_COMMIT := $(shell git describe --always --dirty 2>/dev/null)
BIN := $(CARGO_TARGET_DIR)/debug/webdancer
# One feature set for everything: building a part alone would build dependencies a second time.
CARGO_TEST := cargo test --workspace --lib --bins --tests

# What the fuzzed inputs go through.
FUZZED := schemas ingest agent

# The trainer's torch side is built by itself: in the set above it would link libtorch into the command. Deferred, so
# that only what needs it looks for libtorch.
WITH_TORCH = LIBTORCH=$$(deploy/libtorch) cargo
TRAIN := --package webdancer-train --features torch
PARITY := train/tests/fixtures/parity

BENCHES := bench-append bench-crawl bench-dashboard bench-eval bench-ingest bench-pin bench-sql

# The crates named are optimised, on dependencies of the development build whose hot ones are in any case: minutes instead
# of half an hour, where DataFusion takes no part. Checks of overflows and assertions stay.
optimised = $(foreach crate,$(1),--config 'profile.dev.package.webdancer-$(crate).opt-level=3')

.PHONY: help build build-train demo demo-quick demo-report experiment-pins experiment-report test test-build test-train parity parity-eval screenshots lint torture fuzz release $(BENCHES) bench-funnel bench-train bench-sft bench-rollout bench-dapo clean

help: ## What there is to make
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

build: ## The command, as ./webdancer
	@deploy/setup build
	@echo "building webdancer (the first time takes about 12 minutes on two cores)"
	cargo build --workspace --bins
	@ln -sfn $(BIN) webdancer
	@echo "built ./webdancer"

build-train: ## The trainer, as ./webdancer-train; fetches libtorch unless a PyTorch is installed
	@deploy/setup build
	@deploy/libtorch >/dev/null
	@echo "building webdancer-train (the first time takes about 10 minutes on two cores)"
	@# With the examples, dependencies have the features that the tests want: they are built once for both.
	$(WITH_TORCH) build $(TRAIN) --bins --examples
	@ln -sfn $(BIN)-train webdancer-train
	@echo "built ./webdancer-train"

demo: build build-train ## From pages to a trained policy and its scores; no keys, no network
	./webdancer demo --folder demo-lake

demo-quick: build build-train ## The same with less of everything, in two minutes: every stage, and a loss that falls
	./webdancer demo --quick --folder demo-lake

demo-report: build build-train ## The demo with three seeds, and its table and plot in docs/results (BENCH_SEEDS); about 35 minutes
	python3 tests/bench/demo_report.py

experiment-pins: build ## The pins that experiments/*.toml name, in experiment-lake (EXPERIMENT_ARGS=--quick: small ones)
	experiments/pins experiment-lake $(EXPERIMENT_ARGS)

experiment-report: ## Pages in docs/results of experiments that have run (RESULTS="FILE …", their results.json)
	python3 tests/bench/experiment_report.py $(RESULTS)

test: test-build ## All tests, with a real Kafka broker, a real S3 server, other engines' readers and a browser
	@export KAFKA_PORT=19392 KAFKA_DIR=$(CARGO_TARGET_DIR)/test-kafka; \
	trap 'deploy/kafka/broker stop >/dev/null || true' EXIT; \
	deploy/kafka/broker start && \
	WEBDANCER_TEST_KAFKA=127.0.0.1:19392 WEBDANCER_REQUIRE_KAFKA=1 WEBDANCER_REQUIRE_S3=1 WEBDANCER_REQUIRE_READERS=1 WEBDANCER_REQUIRE_BROWSER=1 \
	RUST_BACKTRACE=0 $(CARGO_TEST) --no-fail-fast
	$(MAKE) --no-print-directory test-train

test-train: ## The tests of the trainer with libtorch, and of the command with it
	@deploy/setup test
	@deploy/libtorch >/dev/null
	cargo build --workspace --bins
	WEBDANCER_REQUIRE_COMMAND=1 RUST_BACKTRACE=0 $(WITH_TORCH) test $(TRAIN) --lib --bins --tests --no-fail-fast

parity: ## Fixtures of the trainer made again by transformers and TRL, and what the trainer saves loaded by it
	@deploy/setup test
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && python=$$(deploy/py-env train/parity/requirements.txt) && \
	"$$python" train/parity/parity.py generate $(PARITY) && "$$python" train/parity/trl_loss.py $(PARITY)/trl-loss.json && \
	WEBDANCER_PARITY_OUT="$$out" $(WITH_TORCH) test $(TRAIN) --test it -- parity are_those_of_transformers are_those_of_trl && \
	"$$python" train/parity/parity.py check "$$out"

parity-eval: ## What the statistics and GAIA's scorer are held against, made again by inspect_ai, statsmodels and SciPy
	@deploy/setup test
	@"$$(deploy/py-env eval/parity/requirements.txt)" eval/parity/parity.py eval/tests/fixtures/parity.json && \
	$(CARGO_TEST:--bins=) -- parity::

test-build: ## All that the tests need, and no test
	@deploy/setup test
	@echo "fetching the broker's jars and the Python readers, unless they are there"
	@deploy/kafka/broker fetch
	@deploy/py-env >/dev/null
	@deploy/py-env deploy/s3/requirements.txt >/dev/null
	@deploy/py-env tests/browser/requirements.txt >/dev/null
	$(CARGO_TEST) --no-run
	@deploy/libtorch >/dev/null
	$(WITH_TORCH) test $(TRAIN) --lib --bins --tests --no-run

screenshots: build ## docs/images, from the lake of `make demo` (SCREENSHOTS_LAKE)
	@deploy/setup test
	"$$(deploy/py-env tests/browser/requirements.txt)" tests/browser/screenshots.py --command $(BIN) \
	--lake $(or $(SCREENSHOTS_LAKE),demo-lake/lake) docs/images

lint: ## Format, clippy and documentation, all warnings denied
	@deploy/libtorch >/dev/null
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(WITH_TORCH) clippy $(TRAIN) --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

torture: ## The fault suites for long: 100 kills per scenario
	@deploy/setup test
	@deploy/kafka/broker fetch
	WEBDANCER_KILLS=100 WEBDANCER_REQUIRE_KAFKA=1 WEBDANCER_REQUIRE_S3=1 $(CARGO_TEST) -- --nocapture kill

fuzz: ## A million mutated inputs through the decoder and the trajectory parser, optimised
	@deploy/setup build
	WEBDANCER_FUZZ_CASES=$(or $(WEBDANCER_FUZZ_CASES),1000000) cargo test --workspace --test fuzz --no-fail-fast \
	$(call optimised,$(FUZZED)) -- --nocapture mutat

release: ## The optimised command
	@deploy/setup build
	cargo build --release --workspace --bins

bench-append: ## Durable appends beside SQLite and Kafka
bench-crawl: ## The crawler beside scrapy and wget (BENCH_COPIES)
bench-dashboard: ## Every page over 200 runs beside a SELECT of its rows (BENCH_ROWS, BENCH_RUNS)
bench-eval: ## Evaluation runs beside inspect_ai, on one stub model server (BENCH_QUESTIONS)
bench-ingest: ## Kafka to table beside Spark, delta-rs and others (2 GB a topic; BENCH_GB)
bench-pin: ## Pins beside DuckDB's COPY (BENCH_ROWS)
bench-sql: ## SQL beside DuckDB and Polars (BENCH_ROWS)

$(BENCHES): bench-%:
	@deploy/setup test
	@echo "building with optimisation (the first time takes about half an hour on two cores)"
	cargo build --release --workspace --bins --examples
	python3 tests/bench/$*.py

bench-funnel: ## The funnel's rules over a million trajectories beside DuckDB (BENCH_ROWS)
	@deploy/setup test
	cargo build --workspace --example bench_funnel $(call optimised,schemas agent synth tests)
	python3 tests/bench/funnel.py

bench-train: ## Training and generation on a processor beside transformers (BENCH_ROUNDS)
	@deploy/setup test
	@deploy/libtorch >/dev/null
	$(WITH_TORCH) build $(TRAIN) --bins $(call optimised,schemas agent train)
	python3 tests/bench/train.py

bench-sft: ## Fine-tuning at real shapes beside transformers and TRL, on a GPU if there is one (BENCH_SHAPES, BENCH_MINUTES)
bench-rollout: ## Rollouts at real shapes beside transformers, likewise

bench-sft bench-rollout: bench-%:
	@deploy/setup test
	@deploy/libtorch >/dev/null
	$(WITH_TORCH) build $(TRAIN) --bins $(call optimised,schemas agent train)
	python3 tests/bench/$*.py

bench-dapo: ## A DAPO step on a processor beside a plain loop in PyTorch (BENCH_ROUNDS); with the lake of make demo, all of it
	@deploy/setup test
	@deploy/libtorch >/dev/null
	cargo build --workspace --bins
	$(WITH_TORCH) build $(TRAIN) --bins --example bench_dapo $(call optimised,schemas agent train)
	python3 tests/bench/dapo.py

clean: ## The demo's lake and the link; the target folder stays
	rm -rf demo-lake demo-report experiment-lake webdancer webdancer-train
