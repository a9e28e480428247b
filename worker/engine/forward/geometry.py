"""The layout of a packed pass: which tokens belong to which row, what each of them sees, and which are read.

Everything per token is computed by numpy: a batch has tens of thousands of them, and the engine's thread only one core.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Prefix:
    """Tokens that prompts of one mode begin with, and their keys and values: (layers, 2, kv_heads, tokens, head_dim)."""

    ids: tuple[int, ...]
    kv: torch.Tensor

    @property
    def n(self) -> int:
        """Its length in tokens."""
        return len(self.ids)


class Run(NamedTuple):
    """Consecutive tokens of a row that see everything before them: `tokens` of the batch, the first one at `at` in the row.

    `queries` of the batch, or of its reads, attend in it: those of the row's last tokens, up to the run's end.
    """

    tokens: range
    at: int
    queries: range

    @property
    def n(self) -> int:
        """How many tokens of the row the run's last token sees, including itself."""
        return self.at + len(self.tokens)


class Rows:
    """The geometry of a packed batch: for each row its tokens, how many of the last ones are read, and its prefix.

    A row may end in an aside: `asides[i]` tokens that replace the `skips[i]` tokens before them; the two do not see each other. The
    aside's last token is read, and does not count in the tail.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Ints,
        tails: Sequence[int] | Ints,
        prefixes: Sequence[Prefix],
        asides: Sequence[int] | Ints = (),
        skips: Sequence[int] | Ints = (),
    ) -> None:
        self.prefixes = prefixes
        self.lengths, self.tails = np.asarray(lengths, np.int64), np.asarray(tails, np.int64)
        none = np.zeros_like(self.lengths)
        self.asides = np.asarray(asides, np.int64) if len(asides) else none
        self.skips = np.asarray(skips, np.int64) if len(skips) else none
        self.starts = starts_of(self.lengths)
        self.ends = self.starts + self.lengths
        self.middles = self.ends - self.asides  # where the asides begin
        self.is_aside = self.asides > 0
        self.first_reads = starts_of(self.tails + self.is_aside)  # of each row, among all reads

    @property
    def tokens(self) -> int:
        """How many tokens the whole batch has."""
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def n_reads(self) -> int:
        """How many tokens of the whole batch are read."""
        return int((self.tails + self.is_aside).sum())

    @functools.cached_property
    def aside_tokens(self) -> Ints:
        """Indices of all asides' tokens."""
        return spread(self.middles, self.asides)

    @functools.cached_property
    def aside_reads(self) -> Ints:
        """Indices, among the reads, of the asides' last tokens."""
        return (self.first_reads + self.tails)[self.is_aside]

    def positions(self) -> Ints:
        """Return each token's position in its own prompt."""
        before = np.fromiter((prefix.n for prefix in self.prefixes), np.int64, len(self.prefixes))
        out = np.arange(self.tokens) + np.repeat(before - self.starts, self.lengths)
        out[self.aside_tokens] -= np.repeat(self.skips, self.asides)
        return out

    def reads(self) -> Ints:
        """Return the indices of the tokens that are read: each row's tail, and the last token of its aside."""
        out = np.empty(self.n_reads, np.int64)
        out[spread(self.first_reads, self.tails)] = spread(self.middles - self.tails, self.tails)
        out[self.aside_reads] = self.ends[self.is_aside] - 1
        return out

    @functools.cached_property
    def groups(self) -> list[tuple[Prefix, slice]]:
        """Adjacent rows with the same prefix: the prefix, and which rows."""
        out: list[tuple[Prefix, slice]] = []
        for at, prefix in enumerate(self.prefixes):
            if out and out[-1][0] is prefix:
                out[-1] = (prefix, slice(out[-1][1].start, at + 1))
            else:
                out.append((prefix, slice(at, at + 1)))
        return out

    @functools.cached_property
    def runs(self) -> list[list[Run]]:
        """Each row's run, and its aside's, if all tokens of the batch are queries, in order."""
        out = []
        for start, middle, end, skip in zip(*self._listed(self.starts, self.middles, self.ends, self.skips), strict=True):
            out.append([Run(range(start, middle), 0, range(start, middle))])
            if middle < end:
                out[-1].append(Run(range(middle, end), middle - start - skip, range(middle, end)))
        return out

    @functools.cached_property
    def read_runs(self) -> list[list[Run]]:
        """The same if only the tokens that are read are queries, in order."""
        out = []
        for runs, tail, at in zip(self.runs, *self._listed(self.tails, self.first_reads), strict=True):
            first, *aside = runs
            read = [run._replace(queries=range(at + tail, at + tail + 1)) for run in aside]
            out.append([first._replace(queries=range(at, at + tail)), *read])
        return out

    @functools.cached_property
    def keys(self) -> list[int]:
        """The maximum number of keys that a row's tokens see."""
        return [prefix.n + max(run.n for run in runs) for prefix, runs in zip(self.prefixes, self.runs, strict=True)]

    @staticmethod
    def _listed(*several: Ints) -> list[list[int]]:
        return [values.tolist() for values in several]


def starts_of(lengths: Ints) -> Ints:
    """Return where each of several consecutive spans begins."""
    return np.cumsum(lengths) - lengths


def spread(starts: Ints, counts: Ints) -> Ints:
    """Return the integers start, start + 1, … of `counts` each, one range after the other."""
    return np.repeat(starts - starts_of(counts), counts) + np.arange(int(counts.sum()))
