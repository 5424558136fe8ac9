#!/usr/bin/env python3
"""Quick figures: speed of three patterns, and the cost of a small process.

    tests/bench/run.py [--rounds N] [--toolchain out/musl-1.2.6]

Compares musl's mallocng and byssal inside musl (static programs), and by LD_PRELOAD on the host's
libc glibc's malloc, libbyssal.so, and Debian's mimalloc and jemalloc where they are installed
(packages libmimalloc2.0 and libjemalloc2). Rounds are interleaved; printed are medians, and the
median of the ratios to mallocng round by round. Needs what `make` made; strace for system calls.
"""

import argparse
import glob
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PATTERNS = [("pair", 3000000), ("random", 1000000), ("exchange", 1000000)]


def build(compiler, source, output, *flags):
    subprocess.run([compiler, "-std=gnu11", "-O2", "-fno-builtin", "-pthread", *flags,
                    os.path.join(HERE, source), "-o", output], check=True)


def preloads():
    """Name and library of each allocator for LD_PRELOAD; None is the host's own."""
    found = [("glibc", None), ("byssal .so", os.path.join(ROOT, "out/lib/libbyssal.so"))]
    for name, pattern in [("mimalloc", "libmimalloc.so.2*"), ("jemalloc", "libjemalloc.so.2")]:
        files = sorted(glob.glob("/usr/lib/*/" + pattern))
        if files:
            found.append((name, files[0]))
        else:
            print(f"skipped: {name}: no {pattern} in /usr/lib")
    return found


def speed(runs, rounds):
    """runs: (name, program, library). Prints a table per pattern."""
    for pattern, operations in PATTERNS:
        times = {name: [] for name, _, _ in runs}
        for _ in range(rounds):
            for name, program, library in runs:
                env = dict(os.environ, **({"LD_PRELOAD": library} if library else {}))
                out = subprocess.run([program, pattern, str(operations)], env=env, check=True,
                                     capture_output=True, text=True).stdout
                times[name].append(float(out))
        base = times[runs[0][0]]
        print(f"\n{pattern}: ns of CPU time per malloc and free, {rounds} rounds")
        print(f"  {'':14}{'median':>9}{'min':>9}{'max':>9}{'ratio to ' + runs[0][0]:>22}")
        for name, _, _ in runs:
            t = times[name]
            ratio = statistics.median(a / b for a, b in zip(t, base))
            print(f"  {name:14}{statistics.median(t):9.1f}{min(t):9.1f}{max(t):9.1f}{ratio:22.3f}")


def system_calls(command):
    if not shutil.which("strace"):
        return None
    with tempfile.NamedTemporaryFile("r") as log:
        subprocess.run(["strace", "-f", "-o", log.name, *command], check=True,
                       stdout=subprocess.DEVNULL)
        lines = [line.split(None, 1)[1] for line in log if "(" in line]
    # The program's own look at itself, and its start and end.
    own = ("getrusage", "open", "read", "write", "execve", "exit_group")
    return sum(not line.startswith(own) for line in lines)


def small(programs, rounds):
    print("\nsmall process: system calls, minor faults, anonymous KiB (medians)")
    for blocks in ["0", "1", "1000"]:
        for name, program in programs:
            command = [program, blocks] + (["free"] if blocks != "0" else [])
            seen = [subprocess.run(command, check=True, capture_output=True, text=True)
                    .stdout.split() for _ in range(rounds)]
            faults, dirty = (statistics.median(int(s[i]) for s in seen) for i in (0, 1))
            calls = system_calls(command)
            calls = "skipped: no strace" if calls is None else calls
            print(f"  {blocks:>5} blocks  {name:22} {calls:>4} {faults:8.0f} {dirty:8.0f}")


def sizes(programs):
    print("\nstatic program (text, data, bss in bytes)")
    for name, program in programs:
        row = subprocess.run(["size", program], check=True, capture_output=True, text=True)
        print(f"  {name:22}", *row.stdout.splitlines()[1].split()[:3])


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--toolchain", default=os.path.join(ROOT, "out/musl-1.2.6"))
    options = arguments.parse_args()
    version = os.path.basename(os.path.normpath(options.toolchain))
    ours = os.path.join(options.toolchain, "bin/musl-gcc")
    stock = os.path.join(ROOT, "out/stock", version, "bin/musl-gcc")
    for tool in (ours, stock):
        if not os.path.exists(tool):
            sys.exit(f"{tool}: not there; run `make` first")
    with tempfile.TemporaryDirectory() as work:
        path = lambda name: os.path.join(work, name)
        for name, compiler in [("mallocng", stock), ("byssal", ours)]:
            build(compiler, "speed.c", path("speed-" + name), "-static")
            build(compiler, "small.c", path("small-" + name), "-static")
            build(compiler, "small.c", path("small-dynamic-" + name))
        build("gcc", "speed.c", path("speed-host"))
        runs = [("mallocng", path("speed-mallocng"), None),
                ("byssal", path("speed-byssal"), None)]
        runs += [(name, path("speed-host"), library) for name, library in preloads()]
        speed(runs, options.rounds)
        names = ["mallocng", "byssal", "dynamic-mallocng", "dynamic-byssal"]
        small([(name, path("small-" + name)) for name in names], options.rounds)
        sizes([(name, path("small-" + name)) for name in names[:2]])


if __name__ == "__main__":
    main()
