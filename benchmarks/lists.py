#!/usr/bin/env python3
"""Look for 100,000 terms and 200 patterns in texts: CPU a text, memory, and what hostile texts and patterns cost.

    python -m benchmarks.lists [--terms 100000] [--patterns 200] [--texts 20000] [--turns 7]

Terms are random words, and texts of 200 characters of other random words, a fifth of which hold digits or exclamation marks
beside letters; one text in a hundred holds a term. Shards of 1,024 texts, as a worker has them. Hostile ones: a million characters
that are all hits, one run, nested repetitions against RE2. The last line of stdout is one JSON.
"""

import argparse
import json
import random
import resource
import statistics
import time
from collections.abc import Callable

from guardfleet.lists.document import Entry
from guardfleet.lists.matching import Matcher

LETTERS = "abcdefghijklmnoprstuvwxyz"
SHARD = 1024
CHARACTERS = 200
MEGABYTE = 1_000_000


def words(rng: random.Random, n: int, least: int, most: int) -> list[str]:
    """Return random words."""
    return ["".join(rng.choices(LETTERS, k=rng.randint(least, most))) for _ in range(n)]


def pattern(at: int) -> str:
    """Return one of the patterns: numbers as people write them, and two words near each other."""
    if at % 2:
        return rf"(?i)\bfoo{at}[a-z]+\s+bar\d{{2,4}}\b"
    return rf"(?:\+?{at}[ -]?)?\(?\d{{3}}\)?[ -]?\d{{3}}[ -]?\d{{4}}"


def text(rng: random.Random, some: list[str], terms: list[str]) -> str:
    """Return a text of CHARACTERS characters."""
    parts = rng.choices(some, k=60)
    if rng.random() < 0.2:  # noqa: PLR2004
        parts[3] += rng.choice(["!", "2", "7th"])
    if rng.random() < 0.01:  # noqa: PLR2004
        parts[5] = rng.choice(terms)
    return " ".join(parts)[:CHARACTERS]


def seconds(act: Callable[[], object]) -> float:
    """Return the CPU that it took."""
    began = time.process_time()
    act()
    return time.process_time() - began


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--terms", type=int, default=100_000)
    parser.add_argument("--patterns", type=int, default=200)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=7)
    asked, rng = parser.parse_args(), random.Random(7)
    terms = words(rng, asked.terms, 5, 12)
    entries = [Entry(value=term) for term in dict.fromkeys(terms)]
    entries += [Entry(kind="pattern", value=pattern(at)) for at in range(asked.patterns)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    matcher = Matcher([("bench@1", entries)])
    matcher.find(["warm"])
    built_s = time.process_time() - began
    memory_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    some = words(rng, 5000, 1, 9)
    texts = [text(rng, some, terms) for _ in range(asked.texts)]
    shards = [texts[at : at + SHARD] for at in range(0, len(texts), SHARD)]
    rates = [
        sum(seconds(lambda shard=shard: matcher.find(shard)) for shard in shards) / len(texts) * 1e6 for _ in range(asked.turns)
    ]
    hits = sum(found is not None for shard in shards for found in matcher.find(shard))
    print(f"{len(texts):,} texts of {CHARACTERS} characters: {statistics.median(rates):.1f} us a text "
          f"(of {asked.turns}: {min(rates):.1f} to {max(rates):.1f}), {hits:,} with a hit")  # fmt: skip
    print(f"{len(entries):,} entries made ready in {built_s:.1f} s, {memory_mb:.0f} MB")
    hostile = {
        "1 MB of random words": " ".join(rng.choices(some, k=MEGABYTE // 5))[:MEGABYTE],
        "1 MB, each word a hit": f"{terms[0]} " * (MEGABYTE // (len(terms[0]) + 1)),
        "1 MB of one letter": "a" * MEGABYTE,
        "1 MB of signs and digits": "a1!" * (MEGABYTE // 3),
        "1 MB of marks": "e" + "\u0301" * MEGABYTE,
    }
    costs = {name: seconds(lambda one=one: matcher.find([one])) for name, one in hostile.items()}
    nested = Matcher([("bench@1", [Entry(kind="pattern", value=r"(a|aa)+(b|a)*c$"), Entry(kind="pattern", value=r"(x+x+)+y")])])
    for megabytes in (1, 2, 4):
        one = "a" * (MEGABYTE * megabytes // 2) + "x" * (MEGABYTE * megabytes // 2)
        costs[f"{megabytes} MB against nested repetitions"] = seconds(lambda one=one: nested.find([one]))
    for name, cost in costs.items():
        print(f"{name}: {cost:.2f} s")
    print(json.dumps({
        "us_a_text": round(statistics.median(rates), 2), "us_least": round(min(rates), 2), "us_most": round(max(rates), 2),
        "texts": len(texts), "turns": asked.turns, "entries": len(entries), "texts_with_hits": hits, "ready_s": round(built_s, 2),
        "memory_mb": round(memory_mb), "hostile_s": {name: round(cost, 3) for name, cost in costs.items()},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
