"""Ways to draw texts, each with the probability that it draws a text; several are independent draws of which a sample is the union.

A text is in the union with 1 - (1 - p1)(1 - p2)..., exactly, since the draws are independent. Every design gives every text a
probability above 0: otherwise no estimate from the sample could speak of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from guardfleet.domain.designs import DESIGNS, RANDOM, SLICE, UNCERTAIN
from guardfleet.errors import RejectedError
from guardfleet.sampling.population import Mask, Numbers, Places, Population, Strata


@dataclass(frozen=True, slots=True)
class Plan:
    """How many texts to draw, by which designs, and the seed that makes the draw repeatable."""

    n: int
    by: tuple[str, ...]
    seed: int

    @classmethod
    def of(cls, n: int, by: Sequence[str], seed: int, *, slice_key: str | None) -> "Plan":
        """Check what was asked for; a slice key asks for that design. Raises RejectedError."""
        if unknown := sorted(set(by) - set(DESIGNS)):
            raise RejectedError(f"by {', '.join(unknown)[:100]!r} is unknown; use some of {', '.join(DESIGNS)}.", param="by")
        asked = [*dict.fromkeys(by), *([SLICE] if slice_key is not None and SLICE not in by else [])] or [RANDOM]
        if SLICE in asked and not slice_key:
            raise RejectedError("a sample by slice needs the metadata key of the slices: give slice.", param="slice")
        if n < len(asked):
            raise RejectedError(f"n must be at least {len(asked)}, one text for each design.", param="n")
        return cls(n, tuple(asked), seed)

    def shares(self) -> dict[str, int]:
        """Return how many texts each design draws: equally many, the first ones one more."""
        each, more = divmod(self.n, len(self.by))
        return {name: each + (at < more) for at, name in enumerate(self.by)}


class Draw(NamedTuple):
    """What one design draws: the probability of each text, and which were taken."""

    probability: Numbers
    taken: Mask


class Drawn(NamedTuple):
    """A sample: places in the population in random order, and their probabilities."""

    places: Places
    probability: Numbers


def draw(population: Population, plan: Plan) -> Drawn:
    """Draw a sample; the same one for the same seed. Raises RejectedError if a design cannot represent each of its strata."""
    probability = np.zeros(len(population))
    taken = np.zeros(len(population), bool)
    for name, n in plan.shares().items():
        rng = np.random.default_rng([plan.seed, DESIGNS.index(name)])
        one = _by(name, population, min(n, len(population)), rng)
        probability += one.probability * (1 - probability)
        taken |= one.taken
    places = np.random.default_rng([plan.seed, len(DESIGNS)]).permutation(np.flatnonzero(taken))
    return Drawn(places, probability[places])


def _by(name: str, population: Population, n: int, rng: np.random.Generator) -> Draw:
    if name == RANDOM:
        return simple(len(population), n, rng)
    if name == UNCERTAIN:
        return systematic(proportional(population.doubt, n), rng)
    strata = population.slices if name == SLICE else population.disagreement
    if strata is None:
        raise RejectedError(f"there is nothing to draw by {name}.", param="by")
    return stratified(strata, n, rng)


def simple(n_texts: int, n: int, rng: np.random.Generator) -> Draw:
    """Draw n texts, each subset of that size equally likely."""
    taken = np.zeros(n_texts, bool)
    taken[rng.choice(n_texts, n, replace=False, shuffle=False)] = True
    return Draw(np.full(n_texts, n / n_texts), taken)


def proportional(sizes: Numbers, n: int) -> Numbers:
    """Return probabilities in proportion to the sizes that add up to n; none is more than 1, others get the rest."""
    out = np.ones(len(sizes))
    left, among = n, np.arange(len(sizes))
    while left > 0 and len(among):
        share = sizes[among].astype(np.float64)
        share *= left / share.sum()
        certain = share >= 1
        if not certain.any():
            out[among] = share
            break
        left, among = left - int(certain.sum()), among[~certain]
    return out


def systematic(probability: Numbers, rng: np.random.Generator) -> Draw:
    """Draw texts with these probabilities: they are laid side by side in random order, and every whole step takes one."""
    order = rng.permutation(len(probability))
    steps = np.floor(np.cumsum(probability[order]) + rng.random())
    taken = np.zeros(len(probability), bool)
    taken[order] = np.diff(steps, prepend=0.0) >= 1
    return Draw(probability, taken | (probability >= 1))


def stratified(strata: Strata, n: int, rng: np.random.Generator) -> Draw:
    """Draw equally many texts of each stratum, or all of a smaller one. Raises RejectedError if one would get none."""
    counts = np.bincount(strata.codes, minlength=len(strata.names))
    if n < np.count_nonzero(counts):
        raise RejectedError(f"{np.count_nonzero(counts):,} strata share {n:,} texts: raise n, so that each gets one.", param="n")
    quota = equal(counts, n)
    shuffled = rng.permutation(len(strata.codes))
    grouped = shuffled[np.argsort(strata.codes[shuffled], kind="stable")]
    rank = np.arange(len(grouped)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = np.zeros(len(strata.codes), bool)
    taken[grouped] = rank < quota[strata.codes[grouped]]
    return Draw((quota / np.maximum(counts, 1))[strata.codes], taken)


def equal(counts: Places, n: int) -> Places:
    """Return how many to draw of each stratum: equally many, at most all of it, n in all; the rest goes to the largest."""
    out = np.zeros(len(counts), np.int64)
    left = min(n, int(counts.sum()))
    while left:
        room = np.flatnonzero(out < counts)
        each = left // len(room)
        if not each:
            room = room[np.argsort(-counts[room], kind="stable")][:left]
            each = 1
        more = np.minimum(each, counts[room] - out[room])
        out[room] += more
        left -= int(more.sum())
    return out
