# Everything is built and kept in this folder; `make clean` removes it.

VENV := .venv/bin
PYTHON_FILES := demo tests tools
# The fuzz targets are a package outside the workspace, so each step names it.
FUZZ := --manifest-path fuzz/Cargo.toml
# Hidden folders hold installed or built files, except .ci.
SHELL_FILES = .ci/run $(shell find . -name '*.sh' -not -path './.*' -not -path './target/*')
CONTAINER_FILES = $(shell find deploy -name Containerfile)

.PHONY: help tools build check test client-test grpc-test page-test upgrade-test test-all alerts-test chart-test procedures-test machines-test soak bench bench-large bench-check bench-build image image-test cluster-test mesh-test docs lint fuzz demo clean

# For `make grpc-test`. The version is part of the file name, so a new version is built.
GRPCURL_VERSION := v1.9.4
GRPCURL := target/go/grpcurl-$(GRPCURL_VERSION)

# For `make upgrade-test`: the patgate from before the latest change of the schema.
PREVIOUS = target/previous/patgate-$(shell cat tests/integration/upgrades/previous)

# For `make test`: run only the integration tests whose names contain this.
T ?=

# For `make soak`. Without a seed, the test draws one.
MINUTES ?= 10
SEED ?=

# For `make fuzz`: the number of messages to decode with our decoder and with the generated one.
CASES ?= 10000000

# For `make bench-check`: if not empty, the counts become the new baseline.
UPDATE ?=
# For `make bench` and `make bench-large`: if not empty, write the table into docs/performance.md; for
# `make page-test`, renew the pictures.
DOCS ?=
# TESTED_PATGATE names another patgate than the release binary, which then is not built. The variable
# does not begin with PATGATE_, which patgate would read as a setting.
RELEASE = $(if $(TESTED_PATGATE),,build)
BENCH = TESTED_PATGATE=$(CURDIR)/target/bench/patgate cargo bench --locked --bench checks --

help:
	@echo 'make demo         take a tour of patgate behind a real Envoy (ONCE=1: check the answers and end)'
	@echo 'make build        build the release binary, target/release/patgate'
	@echo 'make check        run clippy and the quick unit tests, which need no servers; for use between two edits'
	@echo 'make test         run the tests against real Postgres, Valkey and Envoy; a test whose program is missing says so'
	@echo '                  (T=faults:: runs only the integration tests whose names contain it)'
	@echo 'make grpc-test    call the gRPC services with grpcurl; needs Go'
	@echo 'make client-test  drive the clients of model APIs and check what they show (in Chromium only if it is installed)'
	@echo 'make page-test    use the pages of self-service in Chromium, which must be installed (DOCS=1: also take the'
	@echo '                  pictures of docs/images)'
	@echo 'make upgrade-test upgrade from the patgate before the latest change of the schema and go back, under load;'
	@echo '                  builds it, so it needs a clone with its history'
	@echo 'make test-all     run the five above in one run; needs Go and a clone with its history'
	@echo 'make alerts-test  check alerts, dashboard and runbook in a real Prometheus, which must be installed'
	@echo 'make chart-test   render the Helm chart with Helm 3 and 4 and check the objects (T=sidecar: only some of'
	@echo '                  the sets of values); needs Linux on x86_64'
	@echo 'make procedures-test run the commands of the documents as they are written (T=rollout: only some);'
	@echo '                  needs promtool'
	@echo 'make machines-test run what deploy/machines ships and says, as the units of systemd say; needs root'
	@echo 'make soak         inject random faults for 10 minutes and judge every answer (MINUTES=…, SEED=…)'
	@echo 'make bench        measure what a check costs, as a table in target/bench (BENCH_QUICK=1: a short trial;'
	@echo '                  DOCS=1: write the table into docs/performance.md)'
	@echo 'make bench-large  run the same benchmark, and one with ten million tokens'
	@echo 'make bench-check  compare the instructions of a check with the baseline (UPDATE=1: set a new baseline)'
	@echo 'make image        build the container image, target/image/patgate-*.tar, with its bill of materials; needs buildah'
	@echo 'make image-test   build it, run it with runc and check it; needs root'
	@echo 'make cluster-test install the chart on a Kubernetes that it starts, or on that of KUBECONFIG; needs the image,'
	@echo '                  Go, root and some packages, and says which (T=rollout: only some of the scenarios)'
	@echo 'make mesh-test    the same for Envoy Gateway and Istio: what their proxies do, as they were really told'
	@echo 'make fuzz         compare the decoder with the generated one on 10 million messages (CASES=…)'
	@echo 'make docs         make a site of the documents in target/docs-site, to be read without a network'
	@echo 'make lint         check formatting, lints, docs and their links, licences, shell, the image, protobuf, Python'
	@echo '                  and the chart'
	@echo 'make tools        install what tests and demo need besides Rust into .venv'
	@echo 'make clean        remove everything that these commands made'

tools:
	@tools/install.sh

build:
	cargo build --release --locked

# Leaves out the unit tests with long searches, which `make test` runs.
check:
	cargo test --locked --lib -- --skip freshness::model --skip freshness::tests --skip cost:: --skip agrees_with_the_generated_decoders
	cargo clippy --locked --workspace --all-targets -- -D warnings

test: tools
	@tools/install_clients.sh python
	cargo test --locked $(if $(T),--test integration -- $(T))

grpc-test: tools $(GRPCURL)
	GRPCURL=$(CURDIR)/$(GRPCURL) cargo test --locked --test integration -- grpc::grpcurl_

# Go's modules and build cache are also in target, so that `make clean` removes them.
$(GRPCURL):
	@command -v go >/dev/null || { echo 'make grpc-test: Go is missing; it builds grpcurl. See https://go.dev/dl' >&2; exit 1; }
	GOPATH=$(CURDIR)/target/go GOCACHE=$(CURDIR)/target/go/cache GOFLAGS=-modcacherw \
		go install github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION)
	@mv target/go/bin/grpcurl $@

# `make test` runs only the clients that need nothing but Python.
client-test: tools
	@tools/install_clients.sh
	TESTED_CLIENTS=all cargo test --locked --test integration -- clients::

page-test: tools
	@tools/install_clients.sh
	@command -v chromium chromium-browser google-chrome >/dev/null || { echo 'make page-test: Chromium is missing. Debian: apt-get install chromium' >&2; exit 1; }
	CI=true TESTED_CLIENTS=all $(if $(DOCS),TESTED_PICTURES=$(CURDIR)/docs/images) \
		cargo test --locked --test integration -- site::browser::

upgrade-test: tools
	@tools/previous.sh
	PREVIOUS_PATGATE=$(CURDIR)/$(PREVIOUS) cargo test --locked --test integration -- upgrades::

# One run starts each client and each server once; three runs would start some of them again.
test-all: tools $(GRPCURL)
	@tools/install_clients.sh
	@tools/previous.sh
	GRPCURL=$(CURDIR)/$(GRPCURL) PREVIOUS_PATGATE=$(CURDIR)/$(PREVIOUS) TESTED_CLIENTS=all cargo test --locked

# One after the other: alerts about time would be about the other tests.
alerts-test: tools $(RELEASE)
	@command -v prometheus >/dev/null && command -v promtool >/dev/null || { echo 'make alerts-test: prometheus or promtool is missing. Debian and Ubuntu: apt-get install prometheus; others: https://prometheus.io/download' >&2; exit 1; }
	TESTED_ALERTS=all cargo test --locked --test integration -- alerts:: --test-threads=1
	$(VENV)/python tests/alerts/run.py

chart-test: $(RELEASE)
	@tools/install.sh chart
	PYTHONPATH=$(CURDIR)/$(dir $(VENV))chart $(VENV)/python tests/chart/run.py $(T)

# Starts its own servers. Each block of code in a document has a claim in tests/documents/claims.toml.
procedures-test: tools $(RELEASE)
	@tools/install.sh chart
	$(VENV)/python tests/documents/run.py $(T)

# In namespaces of its own; needs root, and nginx, logrotate and systemd-analyze.
machines-test: tools $(RELEASE)
	$(VENV)/python tests/machines/run.py

soak: tools
	SOAK_SECONDS=$$(($(MINUTES) * 60)) SOAK_SEED=$(SEED) cargo test --locked --test integration -- soak::

# Copies the release binary that ships. `cargo bench` replaces target/release/patgate by one whose
# dependencies also have the features that the tests need.
bench-build: tools $(RELEASE)
	@mkdir -p target/bench
	@cp $(or $(TESTED_PATGATE),target/release/patgate) target/bench/patgate

bench: bench-build
	DOCS=$(DOCS) $(BENCH)

bench-large: bench-build
	DOCS=$(DOCS) $(BENCH) large

bench-check: bench-build
	UPDATE=$(UPDATE) $(BENCH) check

# The image is that of `make image`, or the archive that TESTED_IMAGE names. tests/cluster/README.md
# says how to use a cluster of one's own.
cluster-test: tools
	@tools/install.sh chart
	$(VENV)/python tests/cluster/run.py cluster $(T)

# Also Envoy Gateway and Istio, from their Go modules.
mesh-test: tools
	@tools/install.sh chart
	$(VENV)/python tests/cluster/run.py mesh $(T)

# A static binary has a build directory of its own, so target/release stays as it is.
image:
	@tools/install.sh image
	@deploy/image/build.sh

image-test: image
	$(VENV)/python tools/image_test.py target/image/patgate-*.tar

# Refuses a link that leads nowhere. The search of the site needs no server.
docs:
	@tools/install.sh site
	rm -rf target/docs-site
	PYTHONPATH=$(CURDIR)/$(dir $(VENV))site $(VENV)/python -m sphinx -q -E -W --keep-going \
		-c tools/site -d target/docs-doctrees . target/docs-site
	@echo 'Open target/docs-site/index.html'

lint:
	@tools/install.sh lint
	cargo fmt --check
	cargo fmt --check $(FUZZ)
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked $(FUZZ) --target-dir target -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items
	PATH="$(CURDIR)/$(VENV):$$PATH" cargo deny --locked check bans licenses sources
	$(VENV)/shellcheck $(SHELL_FILES)
	$(VENV)/hadolint $(CONTAINER_FILES)
	$(VENV)/buf lint
	$(VENV)/ruff check $(PYTHON_FILES)
	$(VENV)/ruff format --check $(PYTHON_FILES)
	$(VENV)/python tools/chart.py --check
	$(VENV)/python tools/links.py
	$(VENV)/python tests/documents/run.py --claims >/dev/null
	$(VENV)/python tests/machines/run.py --units

fuzz:
	DECODER_CASES=$(CASES) cargo test --release --locked --lib -- \
		--exact --nocapture wire::codec::tests::agrees_with_the_generated_decoders

demo: tools $(RELEASE)
	@ONCE=$(ONCE) $(VENV)/python demo/demo.py

clean:
	rm -rf .clients .ruff_cache .venv target
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
