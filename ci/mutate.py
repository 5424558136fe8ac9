"""One small fault put into a source file: what ci/mutants and ci/model-mutants share."""

import re
import sys


def mutate(path, function, before, after):
    """Puts `after` in the place of `before`, which must stand exactly once in the function named.

    White space does not matter. Returns the text that stood in the file
    before, for the caller to put back.
    """
    with open(path, encoding="utf-8") as file:
        text = file.read()
    # rustfmt closes a function at the indentation of its head.
    whole = re.compile(rf"^( *)[a-z( )]*fn {function}\b[^;{{]*{{.*?^\1}}$", re.M | re.S)
    bodies = list(whole.finditer(text))
    if len(bodies) != 1:
        sys.exit(f"error: {path} has {len(bodies)} functions {function}")
    start, end = bodies[0].span()
    words = re.findall(r"\w+|[^\w\s]", before)
    found = list(re.compile(r"\s*".join(map(re.escape, words))).finditer(text, start, end))
    if len(found) != 1:
        sys.exit(f"error: `{before}` stands {len(found)} times in {function} of {path}")
    mutant = text[:found[0].start()] + after + text[found[0].end():]
    with open(path, "w", encoding="utf-8") as file:
        file.write(mutant)
    return text
