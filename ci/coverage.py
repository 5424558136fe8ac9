#!/usr/bin/env python3
"""Sums an lcov file per file of src/heap: lines and branches reached. Lines that are missed and
not excused in ci/unreached.txt go to the second file named, and make the exit status 7."""

import os
import re
import sys


def tested_lines(path):
    """The file's lines up to its unit tests."""
    with open(path, encoding="utf-8") as f:
        lines = f.read().split("\n")
    for number, line in enumerate(lines):
        if line.startswith("#[cfg(test)]") and lines[number + 1].startswith("mod tests"):
            return lines[:number]
    return lines


def excuses():
    """(file below src/heap, text of the line) -> reason."""
    found = {}
    with open("ci/unreached.txt", encoding="utf-8") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                name, text, reason = (part.strip() for part in line.split(" | "))
                found[(name, text)] = reason
    return found


def excused_numbers(name, text, reasons, used):
    """Numbers of the lines that an excuse covers: `*` a file, the head of a function all of it."""
    found = set(range(1, len(text) + 1)) if (name, "*") in reasons else set()
    for index, line in enumerate(text):
        if (name, line.strip()) not in reasons:
            continue
        used.add((name, line.strip()))
        found.add(index + 1)
        if " fn " in line and line.endswith("{"):
            indent = line[: len(line) - len(line.lstrip())]
            while text[index] != indent + "}":
                index += 1
                found.add(index + 1)
    return found


def read(lcov):
    """File -> (line -> count, (line, branch) -> taken)."""
    files = {}
    for line in open(lcov, encoding="utf-8"):
        key, _, rest = line.strip().partition(":")
        if key == "SF":
            lines, branches = files.setdefault(os.path.relpath(rest), ({}, {}))
        elif key == "DA":
            number, count = map(int, rest.split(",")[:2])
            lines[number] = max(count, lines.get(number, 0))
        elif key == "BRDA":
            number, block, branch, taken = rest.split(",")
            place = (int(number), block, branch)
            taken = 0 if taken == "-" else int(taken)
            branches[place] = max(taken, branches.get(place, 0))
    return files


def row(name, lines, hit, excused, branches, taken):
    share = lambda a, b: f"{100 * a / b:.1f} %" if b else ""
    print(f"| {name} | {lines} | {hit} | {share(hit, lines)} | {excused} "
          f"| {branches} | {taken} | {share(taken, branches)} |")


def main():
    lcov, missed_path = sys.argv[1:]
    excused_lines, used = excuses(), set()
    total = [0] * 5
    missed = []
    print("| file | lines | reached | | excused | branches | taken | |")
    print("|---|---|---|---|---|---|---|---|")
    for path, (lines, branches) in sorted(read(lcov).items()):
        if not path.startswith("src/heap/") or re.search(r"/(mock|model|tests|loom_models)(/|\.rs)", path):
            continue
        text = tested_lines(path)
        name = path.removeprefix("src/heap/")
        numbers = [n for n in lines if n <= len(text)]
        hit = sum(lines[n] > 0 for n in numbers)
        excused = 0
        forgiven = excused_numbers(name, text, excused_lines, used)
        for n in numbers:
            if lines[n] > 0:
                continue
            if n in forgiven:
                excused += 1
            else:
                missed.append(f"{path}:{n}: {text[n - 1]}")
        places = [p for p in branches if p[0] <= len(text)]
        taken = sum(branches[p] > 0 for p in places)
        for p in sorted(places):
            if not branches[p]:
                missed.append(f"{path}:{p[0]}: branch {p[1]}.{p[2]}: {text[p[0] - 1]}")
        sums = [len(numbers), hit, excused, len(places), taken]
        total = [a + b for a, b in zip(total, sums)]
        row(name, *sums)
    row("all", *total)
    with open(missed_path, "w", encoding="utf-8") as f:
        f.write("\n".join(missed) + "\n")
    open_lines = [line for line in missed if ": branch " not in line]
    print(f"\n{total[1]} of {total[0]} lines reached, {total[2]} excused in ci/unreached.txt, "
          f"{len(open_lines)} not: {missed_path}")
    for name, text in sorted(key for key in set(excused_lines) - used if key[1] != "*"):
        print(f"gone: {name}: {text}")
    return 7 if open_lines else 0


if __name__ == "__main__":
    sys.exit(main())
