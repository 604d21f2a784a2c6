# The two commands: `make run` shows the gateway at work, `make test` runs everything. Both install what is missing.
.PHONY: run test deps deps-build lint bench compare conformance install release

run: deps-build
	cargo run -- demo

test: deps
	scripts/test

# What `cargo build --release` has made, for systemd (systemd/README.md). The binary keeps the names of its functions, for
# backtraces; lines and inlined calls are in a file apart, where debuggers and backtraces look for it, and which may go.
BINARY ?= target/release/tollgate
DEBUG = /usr/lib/debug/usr/bin/tollgate.debug

install:
	@test -f $(BINARY) || { echo "install: there is no $(BINARY): cargo build --release" >&2; exit 1; }
	install -d -m 0755 $(DESTDIR)/usr/bin $(DESTDIR)$(dir $(DEBUG)) $(DESTDIR)/etc/tollgate
	install -d -m 0700 $(DESTDIR)/etc/tollgate/secrets
	objcopy --only-keep-debug $(BINARY) $(DESTDIR)$(DEBUG)
	chmod 0644 $(DESTDIR)$(DEBUG)
	objcopy --strip-debug --add-gnu-debuglink=$(DESTDIR)$(DEBUG) $(BINARY) $(DESTDIR)/usr/bin/tollgate.new
	chmod 0755 $(DESTDIR)/usr/bin/tollgate.new
	mv -f $(DESTDIR)/usr/bin/tollgate.new $(DESTDIR)/usr/bin/tollgate
	test -e $(DESTDIR)/etc/tollgate/tollgate.yaml || install -m 0644 conf/tollgate.yaml $(DESTDIR)/etc/tollgate/tollgate.yaml
	install -D -m 0644 systemd/tollgate.service $(DESTDIR)/etc/systemd/system/tollgate.service
	install -D -m 0644 systemd/logrotate $(DESTDIR)/etc/logrotate.d/tollgate
	install -D -m 0644 -t $(DESTDIR)/usr/share/doc/tollgate README.md ARCHITECTURE.md
	install -D -m 0644 -t $(DESTDIR)/usr/share/doc/tollgate/systemd systemd/README.md
	install -D -m 0644 -t $(DESTDIR)/usr/share/doc/tollgate/docs docs/*.md docs/*.svg
	install -D -m 0644 -t $(DESTDIR)/usr/share/doc/tollgate/docs/examples docs/examples/*

# Build tools only.
deps-build:
	@scripts/deps build

# Build tools, and the real programs that tests run against.
deps:
	@scripts/deps build test

lint: deps-build
	cargo fmt --check
	rustfmt --check --edition 2024 src/filter/builtin/*.rs src/upstream/balance/*.rs
	cargo clippy --workspace --all-targets --features tollgate-limit/tokio -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

bench: deps-build
	cargo bench --workspace

compare: deps-build
	benches/compare/install
	cargo build --release
	benches/compare/run

# The public suite of HTTP caches, against the release. Needs node and npm.
conformance: deps-build
	cargo build --release
	benches/conformance/run --required 149 --optimal 77
	benches/conformance/run --cache '{ set_cookie: keep }' --required 151 --optimal 78

# The release with a profile of its own load, where the tools for that are to be had.
release: deps-build
	scripts/release
