# byssal: a malloc that lines musl. `make` does the main job, `make check` all tests.
#
# Settings (make NAME=value ...):
#   MUSL       a version, a tarball or a source tree of musl
#   CC         the C compiler, one word
#   JOBS       jobs at a time (default: one for each core)
#   PRESET     default or hardened
#   PREFIX     where `make install` puts the toolchain (default /usr/local/musl)
#   DESTDIR    a root that is put before PREFIX, for packages
#   LIBC_TEST  a checkout of libc-test, for `make libc-test`
#   BENCH      quick (5 minutes) or full (an hour), for `make bench`
#   FUZZ_SECONDS  how long `make fuzz` runs (default 60)

PREFIX = /usr/local/musl
export FUZZ_SECONDS
CARGO = cargo

# What root makes in a user's checkout the user cannot change. Only these leave nothing there.
ifneq ($(filter-out 0,$(SUDO_UID)),)
ifeq ($(shell id -u) $(SUDO_UID),0 $(shell stat -c %u .))
ifneq ($(filter-out install fresh clean,$(or $(MAKECMDGOALS),all)),)
$(error run make without sudo: you could not change what root makes here; sudo is for `make install`)
endif
endif
endif

# make has a value of its own for CC; only one that the user gave counts.
ifneq ($(origin CC),default)
USER_CC = $(CC)
endif

FLAGS = $(if $(MUSL),--musl '$(MUSL)') $(if $(USER_CC),--cc '$(USER_CC)') \
	$(if $(JOBS),--jobs '$(JOBS)') $(if $(PRESET),--preset '$(PRESET)')
BYSSAL = target/debug/byssal

all: tool
	@$(BYSSAL) build $(FLAGS)

check: tool
	@CARGO='$(CARGO)' FLAGS="$(FLAGS)" ci/check

verify fetch patch archive prove: tool
	@$(BYSSAL) $@ $(FLAGS)

libc-test: tool
	@$(BYSSAL) libc-test $(FLAGS) $(if $(LIBC_TEST),'$(LIBC_TEST)')

# Coverage-guided fuzzing of the heap for FUZZ_SECONDS; lines and branches that tests reach.
fuzz coverage:
	@CARGO='$(CARGO)' ci/$@

# Speed and memory beside every peer; docs/benchmark.md.
bench:
	@$(CARGO) build --quiet --locked -p byssal-bench
	@target/debug/byssal-bench run --size $(or $(BENCH),full)

# What threads do to lines that they share, counted, and what many cores would make of it:
# docs/scaling.md.
counts:
	@$(CARGO) build --quiet --locked -p byssal-bench
	@target/debug/byssal-bench counts

# Memory held for known live bytes, beside other allocators: tables, docs/footprint.md, picture.
footprint: all
	@$(BYSSAL) build $(filter-out --preset 'hardened' 'default',$(FLAGS)) --preset hardened \
		--out out/hardened
	@$(CARGO) run --quiet --locked -p byssal-peers -- build mimalloc2 jemalloc
	@$(CARGO) run --quiet --locked -p byssal-footprint -- --docs

# Copies what `make` has built. As root, in a user's checkout, it must build and write nothing there.
install:
	@[ -x $(BYSSAL) ] || { echo "error: nothing is built yet; run: make (without sudo), then this again" >&2; exit 2; }
	@$(BYSSAL) install $(FLAGS) --prefix '$(PREFIX)' $(if $(DESTDIR),--destdir '$(DESTDIR)')

# `make` and `make check` on a Debian that has nothing else, as a user and as root: an hour, as root.
fresh:
	@ci/fresh

# Threads without mercy, about ten minutes; the heap under ThreadSanitizer, about two.
stress: tool
	@CARGO='$(CARGO)' FLAGS="$(FLAGS)" ci/stress

tsan:
	@CARGO='$(CARGO)' ci/tsan

# That the models of loom can fail: one weakened ordering or dropped check after the other.
mutants:
	@CARGO='$(CARGO)' ci/mutants

# The table in docs/misuse.md: both presets and their peers.
misuse: tool
	@$(BYSSAL) build $(FLAGS)
	@$(BYSSAL) build $(FLAGS) --preset hardened --out out/hardened
	@$(CARGO) run --quiet --locked -p byssal-peers -- build mimalloc2-secure hardened_malloc
	@$(CARGO) run --quiet --locked -p byssal-misuse -- --into docs/misuse.md

# Every refusal of a call for memory, in process and for real, and the limits of the system.
shortage: tool
	@$(BYSSAL) build $(FLAGS)
	SHORTAGE=all $(CARGO) test --locked -p byssal-heap --lib -- shortage --show-output
	SHORTAGE=all $(CARGO) test --locked -p byssal-heap --lib --features hardened -- shortage --show-output
	RUSTFLAGS="--cfg small_constants" $(CARGO) test --locked -p byssal-heap --lib \
		--target-dir target/small -- shortage --show-output
	tests/shortage/run all

# Downloads stay: they are pinned, and nobody is served by getting them again.
clean:
	rm -rf out target

tool:
	@command -v $(CARGO) >/dev/null || { \
	echo "error: $(CARGO) is not installed; run: sudo apt-get install cargo (or see rustup.rs)" >&2; exit 3; }
	@$(CARGO) build $(if $(wildcard $(BYSSAL)),--quiet) --locked -p byssal

.PHONY: all check verify fetch patch archive prove libc-test fuzz coverage bench counts footprint install misuse \
	stress tsan shortage fresh clean tool
