"""One small fault put into a source file: what ci/mutants and ci/model-mutants share.

Each has a list of faults: what goes wrong, file below src/heap, function, text (which must stand
there once), replacement.
"""

import re
import sys


class Misfit(Exception):
    """A fault does not fit the code, which has changed."""


def mutant(path, function, before, after):
    """The text of a file, and that text with `after` in the place of `before`.

    `before` must stand exactly once in the function named. White space does not matter.
    """
    with open(path, encoding="utf-8") as file:
        text = file.read()
    # rustfmt closes a function at the indentation of its head.
    whole = re.compile(rf"^( *)[a-z( )]*fn {function}\b[^;{{]*{{.*?^\1}}$", re.M | re.S)
    bodies = list(whole.finditer(text))
    if len(bodies) != 1:
        raise Misfit(f"{path} has {len(bodies)} functions {function}")
    start, end = bodies[0].span()
    words = re.findall(r"\w+|[^\w\s]", before)
    found = list(re.compile(r"\s*".join(map(re.escape, words))).finditer(text, start, end))
    if len(found) != 1:
        raise Misfit(f"`{before}` stands {len(found)} times in {function} of {path}")
    return text, text[:found[0].start()] + after + text[found[0].end():]


def mutate(path, function, before, after):
    """Puts a fault into a file; returns the text before, for the caller to put back."""
    text, wrong = mutant(path, function, before, after)
    with open(path, "w", encoding="utf-8") as file:
        file.write(wrong)
    return text


def texts(heap, faults):
    """Says which faults do not fit the files in `heap`; exits with 7 if there are any."""
    misfits = 0
    for what, name, function, before, after in faults:
        try:
            mutant(f"{heap}/{name}", function, before, after)
        except Misfit as misfit:
            print(f"error: {what}: {misfit}", file=sys.stderr)
            misfits += 1
    print(f"{len(faults) - misfits} of {len(faults)} faults fit the code")
    sys.exit(7 if misfits else 0)
