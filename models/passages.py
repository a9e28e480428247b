"""What the demo detector of generated text learns from: pairs of a human text and its machine continuation, and crops of them.

Two shortcuts are closed. Generated texts have line breaks and doubled spaces that the human ones do not: all white space becomes one
blank. And a generated text begins with the words of the human one, which it was asked to go on with: crops begin after these.
"""

import hashlib
import json
import pathlib
import random
from dataclasses import dataclass

OPENING = 40  # characters; rows that begin alike are of one passage (no 12 words in a row occur in two passages)
PROMPT = 130  # characters; the median of what a generated text repeats, for those whose human text is not in the data
HELD_OUT = 90  # of 256: the first byte of the SHA-256 of a passage's opening


@dataclass(frozen=True)
class Passage:
    """One text with its label. `own_from`: the character from which a generated text is the machine's own."""

    text: str
    is_generated: bool
    source: str
    generator: str | None
    opening: str  # that all rows of one passage share
    own_from: int

    @property
    def is_held_out(self) -> bool:
        """Whether its passage is kept out of fitting and choosing."""
        return hashlib.sha256(self.opening.encode()).digest()[0] < HELD_OUT


def flat(text: str) -> str:
    """Return the text with one blank for each run of white space."""
    return " ".join(text.split())


def passages(path: pathlib.Path) -> list[Passage]:
    """Read the rows, each text once, grouped so that no pair, and no passage that several pairs begin with, is ever divided."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    groups = grouped(rows)
    out: dict[tuple[bool, str], Passage] = {}
    for opening, members in groups.items():
        human = [flat(row["text"]) for row in members if not row["labels"]["ai_generated"]]
        for row in members:
            text, labels = flat(row["text"]), row["labels"]
            own_from = 0 if not labels["ai_generated"] else own_part(text, human)
            out[labels["ai_generated"], text] = Passage(
                text, labels["ai_generated"], labels["domain"], labels["generator"], opening, own_from
            )
    return sorted(out.values(), key=lambda passage: hashlib.sha256(passage.text.encode()).digest())


def own_part(text: str, human: list[str]) -> int:
    """Return how many characters a generated text shares with the human text that it goes on from."""
    return max((shared(text, one) for one in human), default=min(PROMPT, len(text) // 2))


def shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def grouped(rows: list[dict]) -> dict[str, list[dict]]:
    """Return the rows by passage: those of one pair, and those that begin alike, and so on."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for row in rows:
        parent[root("pair " + row["labels"]["pair"])] = root("opening " + flat(row["text"])[:OPENING])
    out: dict[str, list[dict]] = {}
    for row in rows:
        out.setdefault(root("pair " + row["labels"]["pair"]), []).append(row)
    return out


def crop(text: str, start: int, length: int, rng: random.Random) -> str | None:
    """Return whole words of about `length` characters from a random place after `start`; None if there is too little."""
    if len(text) - start < length:
        return None
    at = rng.randint(start, len(text) - length)
    piece = text[at : at + length]
    if at > 0:
        piece = piece.partition(" ")[2]
    return piece.rpartition(" ")[0] or None
