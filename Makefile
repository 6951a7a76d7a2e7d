# Thin verbs: what they do stands in integration/ and in cargo's files.
PREFIX ?= /usr/local
TRIPLE := $(shell rustc -vV | sed -n 's/^host: //p')
CARGO_TARGET_DIR ?= target
BINARY = $(CARGO_TARGET_DIR)/$(TRIPLE)/release/coracle

.PHONY: build check test mutation conformance engines bench layout manual demo vm-shell install clean

build:
	integration/setup build
	cargo build --release

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test:
	integration/test

# Does a test notice when a setter does nothing? One after the other; not part of CI.
mutation:
	integration/mutation

# The specification's own suite, against runc and Coracle; writes docs/conformance.md.
conformance: build
	integration/conformance/run

# Podman, Docker, containerd and Buildah of two Debian releases on Coracle, and on crun and runc beside it; writes docs/engines.md.
engines: build
	RUNTIMES="crun runc coracle" TABLE=yes integration/engines/run
	VM_SUITE=forky RUNTIMES="crun runc coracle" TABLE=yes integration/engines/run

bench: build
	integration/bench

# Notes anew which functions a run calls, for the linker to lay them side by side (src/layout); build again after it.
layout: build
	integration/setup test
	cargo build --release --package coracle-integration
	integration/layout

# Writes docs/man anew from the command line; a unit test sees that it is what that says.
manual:
	MANUAL=write cargo test --package coracle --bin coracle manual

demo: build
	integration/setup test
	integration/demo

# A root shell in the tests' virtual machine; what was built lies in /input.
vm-shell: build
	integration/setup vm
	cargo build --release --package coracle-integration
	integration/vm/run --shell $(BINARY) $(BINARY)-integration

install: build
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/sbin/coracle
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 docs/man/*.8
	install -D -m 644 docs/completions/coracle.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/coracle

clean:
	cargo clean
