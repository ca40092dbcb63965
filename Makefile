# Every target is described by the comment behind `##`; `make` lists them.
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help run test bench loadtest fuzz conformance release

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: release ## build and start a server for development
	target/release/ringcast dev

test: ## everything CI checks: format, lints, Rust tests, tests of the release binary
	tests/setup.sh
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace; else cargo test --workspace; fi
	$(MAKE) --no-print-directory release
	npm --prefix tests test

bench: ## run the benchmarks
	cargo bench

loadtest: ## say how to put load on a server
	@echo "Start a server:    make run"
	@echo "Then in another:   cargo run --release -p ringcast-loadtest --bin swarm -- --help"

fuzz: ## run every fuzz target for FUZZ_SECONDS (needs nightly Rust and cargo-fuzz)
	cd fuzz && for target in $$(cargo +nightly fuzz list); do \
	  cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; done

conformance: release ## compare with the recorded transcripts in ../shared/conformance, 1 and 2 shards
	tests/setup.sh
	tests/conformance.sh

release: ## build target/release/ringcast
	cargo build --release -p ringcast
