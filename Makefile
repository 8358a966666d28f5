# Everything is built and kept in this folder; `make clean` leaves no trace.

VENV := .venv/bin
PYTHON_FILES := demo tests tools
# A package of its own, which nothing else compiles.
FUZZ := --manifest-path fuzz/Cargo.toml
# Hidden folders hold what was installed or built, except for .ci.
SHELL_FILES = .ci/run $(shell find . -name '*.sh' -not -path './.*' -not -path './target/*')

.PHONY: help tools build check test client-test grpc-test test-all soak bench bench-large bench-check bench-build lint fuzz demo clean

# Of `make grpc-test`. Another version is another file.
GRPCURL_VERSION := v1.9.4
GRPCURL := target/go/grpcurl-$(GRPCURL_VERSION)

# Of `make test`: not empty, and only the integration tests whose names contain it run.
T ?=

# Of `make soak`. Without a seed, one is drawn.
MINUTES ?= 10
SEED ?=

# Of `make fuzz`: messages that are read by our decoder and by Envoy's definitions.
CASES ?= 10000000

# Of `make bench-check`: not empty, and what is counted becomes the baseline.
UPDATE ?=
# Of `make bench` and `make bench-large`: not empty, and docs/performance.md shows the table.
DOCS ?=
# By a name that patgate does not take for a setting.
BENCH = TESTED_PATGATE=$(CURDIR)/target/bench/patgate cargo bench --locked --bench checks --

help:
	@echo 'make demo     a tour of patgate behind a real Envoy (ONCE=1: check the tour and end)'
	@echo 'make build    the release binary, target/release/patgate'
	@echo 'make check    clippy and the quick unit tests, which need no server: between two edits'
	@echo 'make test     the tests, against real Postgres, Valkey and Envoy; those whose programs are missing say so'
	@echo '              (T=faults:: runs the integration tests whose names contain that)'
	@echo 'make grpc-test  the gRPC services as grpcurl sees them; needs Go'
	@echo 'make client-test  what the clients of model APIs show their users, in Chromium too if it is there'
	@echo 'make test-all  the three above in one run; needs Go'
	@echo 'make soak     faults at random for 10 minutes (MINUTES=…, SEED=…), every answer judged'
	@echo 'make bench    what a check costs: a table, in target/bench (BENCH_QUICK=1: only a trial; DOCS=1: into docs)'
	@echo 'make bench-large  the same with ten million tokens, too'
	@echo 'make bench-check  instructions of a check against the baseline (UPDATE=1: a new one)'
	@echo 'make fuzz     the decoder against the generated one, on 10 million messages (CASES=…)'
	@echo 'make lint     formatting, lints, docs, licences, shell, protobuf and Python'
	@echo 'make tools    what tests and demo need beside Rust, into .venv'
	@echo 'make clean    remove everything made here'

tools:
	@tools/install.sh

build:
	cargo build --release --locked

# Without the unit tests that search long; `make test` runs them.
check:
	cargo test --locked --lib -- --skip freshness::model --skip freshness::tests --skip cost:: --skip agrees_with_the_generated_decoders
	cargo clippy --locked --workspace --all-targets -- -D warnings

test: tools
	@tools/install_clients.sh python
	cargo test --locked $(if $(T),--test integration -- $(T))

grpc-test: tools $(GRPCURL)
	GRPCURL=$(CURDIR)/$(GRPCURL) cargo test --locked --test integration -- grpc::grpcurl_

# Modules and build cache beside it, so that `make clean` removes them, too.
$(GRPCURL):
	@command -v go >/dev/null || { echo 'make grpc-test: Go is missing; it builds grpcurl. See https://go.dev/dl' >&2; exit 1; }
	GOPATH=$(CURDIR)/target/go GOCACHE=$(CURDIR)/target/go/cache GOFLAGS=-modcacherw \
		go install github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION)
	@mv target/go/bin/grpcurl $@

# Of the clients, `make test` has those that need only Python.
client-test: tools
	@tools/install_clients.sh
	TESTED_CLIENTS=all cargo test --locked --test integration -- clients::

# Each client and each server once, where three runs would start some of them again.
test-all: tools $(GRPCURL)
	@tools/install_clients.sh
	GRPCURL=$(CURDIR)/$(GRPCURL) TESTED_CLIENTS=all cargo test --locked

soak: tools
	SOAK_SECONDS=$$(($(MINUTES) * 60)) SOAK_SEED=$(SEED) cargo test --locked --test integration -- soak::

# The release as it is shipped, under a name of its own: cargo bench builds another one, with what
# the tests need of its dependencies, in its place.
bench-build: tools build
	@mkdir -p target/bench
	@cp target/release/patgate target/bench/patgate

bench: bench-build
	DOCS=$(DOCS) $(BENCH)

bench-large: bench-build
	DOCS=$(DOCS) $(BENCH) large

bench-check: bench-build
	UPDATE=$(UPDATE) $(BENCH) check

lint:
	@tools/install.sh lint
	cargo fmt --check
	cargo fmt --check $(FUZZ)
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked $(FUZZ) --target-dir target -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items
	PATH="$(CURDIR)/$(VENV):$$PATH" cargo deny --locked check bans licenses sources
	$(VENV)/shellcheck $(SHELL_FILES)
	$(VENV)/buf lint
	$(VENV)/ruff check $(PYTHON_FILES)
	$(VENV)/ruff format --check $(PYTHON_FILES)

fuzz:
	DECODER_CASES=$(CASES) cargo test --release --locked --lib -- \
		--exact --nocapture wire::codec::tests::agrees_with_the_generated_decoders

demo: tools build
	@ONCE=$(ONCE) $(VENV)/python demo/demo.py

clean:
	rm -rf .clients .ruff_cache .venv target
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
