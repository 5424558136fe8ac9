"""Work for Python: records in dictionaries, text, classes, sorting, JSON. Argument: rounds."""
import collections
import json
import re
import sys


class Record:
    def __init__(self, number, name):
        self.number = number
        self.name = name
        self.links = []


def records(count):
    made = [Record(i, "record-%d-%s" % (i, "x" * (i % 29))) for i in range(count)]
    for i, record in enumerate(made):
        record.links = [made[(i * k) % count] for k in range(1, 6)]
    return sum(link.number for record in made for link in record.links)


def text(count):
    words = ("%d:%s" % (i, chr(97 + i % 26) * (i % 13)) for i in range(count))
    joined = ", ".join(words)
    tally = collections.Counter(re.findall(r"[a-z]+", joined))
    return sum(len(word) * n for word, n in tally.items())


def documents(count):
    source = [{"id": i, "tags": [str(k) for k in range(i % 7)], "body": {"n": [i] * 5}}
              for i in range(count)]
    again = json.loads(json.dumps(source, sort_keys=True))
    return sum(len(d["tags"]) + sum(d["body"]["n"]) for d in again)


def ordering(count):
    pairs = sorted(((i * 7919) % 10007, str(i)) for i in range(count))
    return sum(int(name) * place for place, (_, name) in enumerate(pairs)) % 1000003


total = 0
for _ in range(int(sys.argv[1])):
    total += records(6000) + text(12000) + documents(1500) + ordering(12000)
    total += sum(int(str(n)[-1]) for n in (3 ** k for k in range(0, 600, 3)))
print("python total", total)
