# The two commands: `make run` shows the gateway at work, `make test` runs everything. Both install what is missing.
.PHONY: run test deps deps-build lint bench compare

run: deps-build
	cargo run -- demo

test: deps
	cargo test --all-targets
	cargo test --doc

# Build tools only.
deps-build:
	@scripts/deps build

# Build tools, and the real programs that tests run against.
deps:
	@scripts/deps build test

lint: deps-build
	cargo fmt --check
	rustfmt --check --edition 2024 src/filter/builtin/*.rs src/upstream/balance/*.rs
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

bench: deps-build
	cargo bench

compare: deps-build
	benches/compare/install
	cargo build --release
	benches/compare/run
