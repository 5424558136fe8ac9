# byssal: a malloc that lines musl. `make` does the main job, `make check` all tests.
#
# Settings (make NAME=value ..., or in the environment; an empty value is the default):
#   MUSL       a version, a tarball or a source tree of musl
#   TARGET     the machine to build for, a triple such as aarch64-linux-musl (default: this one)
#   CC         the C compiler, one word; or CROSS_COMPILE, what is before the gcc of its name
#   JOBS       jobs at a time (default: one for each core)
#   PRESET     default or hardened
#   PREFIX     where `make install` puts the toolchain (default /usr/local/musl)
#   DESTDIR    a root that is put before PREFIX, for packages
#   LIBC_TEST  a checkout of libc-test, for `make libc-test`
#   MUSL_CROSS_MAKE  a checkout of musl-cross-make, for `make musl-cross-make`
#   BENCH      quick (5 minutes) or full (an hour), for `make bench`
#   FUZZ_SECONDS  how long `make fuzz` runs (default 60)
#   TRIALS     how often `make misuse` tries each program (default 100)

PREFIX = /usr/local/musl
CARGO = cargo

# What root makes in a user's checkout the user cannot change. Only these leave nothing there.
ifneq ($(filter-out 0,$(SUDO_UID)),)
ifeq ($(shell id -u) $(SUDO_UID),0 $(shell stat -c %u .))
ifneq ($(filter-out install fresh clean,$(or $(MAKECMDGOALS),all)),)
$(error run make without sudo: you could not change what root makes here; sudo is for `make install`)
endif
endif
endif

# The shell of a recipe finds each setting in its environment, as the user wrote it: no quote,
# dollar sign or line break of a value can then end a word. make has a value of its own for CC;
# only one that the user gave counts.
ifeq ($(origin CC),default)
CC := $(if $(value CROSS_COMPILE),$(value CROSS_COMPILE)gcc)
endif
SETTINGS = MUSL TARGET CC JOBS PRESET PREFIX DESTDIR LIBC_TEST MUSL_CROSS_MAKE BENCH FUZZ_SECONDS TRIALS
$(foreach s,$(SETTINGS),$(eval override $s := $$(value $s)))
$(foreach s,$(SETTINGS),$(eval $(if $(value $s),export,unexport) $s))
export CARGO

# Where cargo works: the user's choice, in full as cargo is run in other directories too.
TARGET_DIR := $(or $(value CARGO_TARGET_DIR),$(value CARGO_BUILD_TARGET_DIR),target)
override CARGO_TARGET_DIR := $(if $(filter /%,$(firstword $(TARGET_DIR))),$(TARGET_DIR),$(CURDIR)/$(TARGET_DIR))
export CARGO_TARGET_DIR
# What would have cargo put its files elsewhere, or compile and link them in another way.
unexport CARGO_BUILD_TARGET CARGO_BUILD_TARGET_DIR CARGO_TERM_COLOR CDPATH RUSTFLAGS \
	CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS LIBRARY_PATH CPATH C_INCLUDE_PATH CFLAGS LDFLAGS

COMMON = $${MUSL:+"--musl=$$MUSL"} $${TARGET:+"--target=$$TARGET"} $${CC:+"--cc=$$CC"} $${JOBS:+"--jobs=$$JOBS"}
FLAGS = $(COMMON) $${PRESET:+"--preset=$$PRESET"}
BYSSAL = "$$CARGO_TARGET_DIR/debug/byssal"

all: tool
	@$(BYSSAL) build $(FLAGS)

check: tool
	@ci/check $(FLAGS)

verify fetch patch dist prove: tool
	@$(BYSSAL) $@ $(FLAGS)

libc-test: tool
	@$(BYSSAL) libc-test $(FLAGS) $${LIBC_TEST:+"$$LIBC_TEST"}

# Coverage-guided fuzzing of the heap for FUZZ_SECONDS.
fuzz:
	@ci/fuzz

# ci/result keeps the tables of a target in docs/results, with commit and machine.

# Lines and branches that tests reach.
coverage:
	@ci/result coverage tests "Lines and branches that unit tests reach" ci/coverage

# Speed and memory beside every peer; docs/benchmark.md. A quick run is shown and not kept.
bench:
	@$(CARGO) build --quiet --locked -p byssal-bench
	@"$$CARGO_TARGET_DIR/debug/byssal-bench" run --size="$${BENCH:-full}"
	@[ "$${BENCH:-full}" != full ] || \
		ci/result bench benchmark "Speed and memory beside other allocators" \
			cat out/bench/tables.md >/dev/null

# The crate in two Rust programs, beside others: a part of `make bench` by itself.
bench-crate:
	@$(CARGO) build --quiet --locked -p byssal-bench
	@"$$CARGO_TARGET_DIR/debug/byssal-bench" run --mode=linked --no-extras --dest=out/bench/crate
	@ci/result bench-crate benchmark "The crate in Rust programs, beside others" \
		cat out/bench/crate/tables.md >/dev/null

# What the heap profile costs, and a flame graph of it: docs/profile.md.
profile: tool
	@$(CARGO) build --quiet --locked -p byssal-bench
	@ci/result profile profile "What the heap profile costs" ci/profile

# What threads do to lines that they share, counted, and what many cores would make of it:
# docs/scaling.md.
counts:
	@$(CARGO) build --quiet --locked -p byssal-bench
	@"$$CARGO_TARGET_DIR/debug/byssal-bench" counts
	@ci/result counts scaling "What threads share, counted and computed" \
		cat out/bench/counts.md >/dev/null

# Memory held for known live bytes, beside other allocators: tables and picture; docs/footprint.md.
footprint: all
	@$(BYSSAL) build $(COMMON) --preset hardened --out out/hardened
	@$(CARGO) run --quiet --locked -p byssal-peers -- build mimalloc2 jemalloc
	@ci/result footprint footprint "Memory held for known live bytes" \
		$(CARGO) run --quiet --locked -p byssal-footprint; \
		status=$$?; cp out/footprint/footprint.svg docs/results/ && exit $$status

# The map of a real program's heap in docs/results/heap.svg; docs/look.md.
picture: all
	@ci/result picture look "What the heap of Python holds" ci/picture

# What fifty small processes at rest hold, beside mallocng; docs/footprint.md.
processes: tool
	@ci/result processes footprint "Fifty small processes at rest" ci/processes

# What one call takes in a heap that is large, or has many holes; docs/benchmark.md.
walks: all
	@ci/result walks benchmark "What one call takes in a large heap" ci/walks

# Copies what `make` has built. As root, in a user's checkout, it must build and write nothing there.
install:
	@[ -x $(BYSSAL) ] || { echo "error: nothing is built yet; run: make (without sudo), then this again" >&2; exit 2; }
	@$(BYSSAL) install $(FLAGS) --prefix="$$PREFIX" $${DESTDIR:+"--destdir=$$DESTDIR"}

# `make` and `make check` on a Debian that has nothing else, as a user and as root: an hour, as root.
fresh:
	@ci/fresh

# Threads without mercy, about ten minutes; the heap under ThreadSanitizer, about two.
stress: tool
	@ci/result stress concurrency "Threads without mercy: the long form" ci/stress $(COMMON)

# Each test that depends on chance or time NIGHT_RUNS times (1000), each time with another seed.
night: tool
	@$(BYSSAL) build $(FLAGS)
	@$(BYSSAL) build $(COMMON) --preset hardened --out out/hardened
	@ci/night

# The heap under ThreadSanitizer, and its tests of one thread under Miri: nightly Rust.
tsan miri:
	@ci/$@

# Toolchains for every machine that has a compiler here, their gates and programs: docs/targets.md.
everywhere: tool
	@ci/result everywhere targets "Every target" ci/everywhere

# The programs on kernels that qemu boots: longer pages, x32; docs/targets.md.
booted: tool
	@ci/result booted targets "Programs on kernels that qemu boots" ci/booted

# The heap's own tests on a machine of the other order of bytes, by qemu: docs/targets.md.
check-s390x:
	@ci/heap-on s390x-unknown-linux-gnu

# Whole toolchains for C and C++ by musl-cross-make with byssal's patch, and programs in them:
# docs/build-systems.md.
musl-cross-make: tool
	@ci/result musl-cross-make build-systems "musl-cross-make with byssal" ci/musl-cross-make

# That the models of loom can fail: one weakened ordering or dropped check after the other.
mutants:
	@ci/result mutants concurrency "What the models notice of weakened code" ci/mutants

# What each misuse meets, in both presets and beside other allocators; docs/misuse.md.
misuse: tool
	@$(BYSSAL) build $(FLAGS)
	@$(BYSSAL) build $(COMMON) --preset hardened --out out/hardened
	@$(CARGO) run --quiet --locked -p byssal-peers -- build mimalloc2-secure hardened_malloc
	@ci/result misuse misuse "What each misuse meets" \
		$(CARGO) run --quiet --locked -p byssal-misuse -- $${TRIALS:+"--trials=$$TRIALS"}
	@$(CARGO) run --quiet --locked -p byssal-misuse -- --excerpts

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
	@ci/tool

.PHONY: all check check-s390x verify fetch patch dist prove libc-test fuzz coverage bench bench-crate profile counts footprint processes walks install misuse \
	stress night tsan miri mutants shortage everywhere booted musl-cross-make picture fresh clean tool
