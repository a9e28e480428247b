"""A first pass: prompts with their drafts, and the answers of all rows that match their draft.

Most rows do. They are found and answered for all rows of a mode at once, since the engine's thread pays for each separate step.
"""

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.engine.answer import parse
from worker.engine.decoding.logits import LabelTokens, Reads
from worker.engine.decoding.modes import Aside, Mode
from worker.engine.decoding.partial_answers import Begun, Ending, PromptRow
from worker.engine.forward.geometry import Ints, Rows
from worker.engine.forward.tree import Tree
from worker.engine.interfaces import Answer
from worker.engine.rendering import MAX_NEW_TOKENS


@dataclass(frozen=True)
class Part:
    """Rows of one mode, adjacent in the pass: their `indices` in the given batch, and what is fed behind each of them."""

    mode: Mode
    draft: Tree
    aside: Aside
    rows: Sequence[PromptRow]
    indices: Sequence[int]

    @functools.cached_property
    def fed(self) -> npt.NDArray[np.int32]:
        """The tokens of draft and aside."""
        return np.array([*self.draft.tokens, *self.aside.tokens], np.int32)

    @property
    def n_reads(self) -> int:
        """Read positions of each row."""
        return len(self.draft.parents) + bool(self.aside.tokens)


class FirstPass:
    """Rows sorted by mode and prefix, with their geometry and all their tokens."""

    def __init__(self, rows: Sequence[PromptRow]) -> None:
        by_mode: dict[int, list[int]] = {}
        for index in sorted(range(len(rows)), key=lambda i: id(rows[i].prefix)):
            by_mode.setdefault(id(rows[index].mode), []).append(index)
        self.parts = [_part([rows[index] for index in indices], indices) for indices in by_mode.values()]
        pieces = [piece for part in self.parts for row in part.rows for piece in (row.ids, part.fed)]
        self.ids: Ints = np.concatenate(pieces, dtype=np.int64)
        each = [len(part.rows) for part in self.parts]
        own = np.fromiter((len(row.ids) for part in self.parts for row in part.rows), np.int64, sum(each))
        self.geometry = Rows(
            own + np.repeat([len(part.fed) for part in self.parts], each),
            np.repeat([len(part.draft.parents) for part in self.parts], each),
            [row.prefix for part in self.parts for row in part.rows],
            np.repeat([len(part.aside.tokens) for part in self.parts], each),
            np.repeat([len(part.draft.tokens) - part.aside.at for part in self.parts], each),
        )


def _part(rows: Sequence[PromptRow], indices: Sequence[int]) -> Part:
    mode = rows[0].mode
    return Part(mode, mode.draft, mode.aside, rows, indices)


def answers_as_drafted(
    part: Part, reads: Reads, first: Ints, chosen: Ints, ending: Ending, label_tokens: LabelTokens
) -> tuple[npt.NDArray[np.bool_], list[Answer]]:
    """Return which rows chose the whole draft and then an end, and their answers, in order.

    `first`: where each row's reads begin; `chosen`: the token chosen at its root and behind each drafted token.
    """
    drafted, indices = len(part.draft.tokens), first[:, None] + np.arange(len(part.draft.parents))
    ends = chosen[:, drafted]
    is_whole = (
        (chosen[:, :drafted] == part.draft.tokens).all(1) & np.isin(ends, list(ending.ids)) & reads.are_finite(indices).all(1)
    )
    if drafted >= MAX_NEW_TOKENS or not is_whole.any():
        return np.zeros_like(is_whole), []
    first, indices = first[is_whole], indices[is_whole]
    tokens = [*part.draft.tokens, int(ends[is_whole][0])]
    like = ending.answer(Begun(tokens), 0, responds=part.mode.responds)
    if like is None:
        return np.zeros_like(is_whole), []
    if like.flaw is None and parse(like.raw, responds=like.responds) is not None:
        part.mode.observe(tokens, len(first))
    is_close = (reads.gaps(indices).min(1) < ending.close).tolist()
    label_at = len(label_tokens.label_prefix)
    labels: Iterable[tuple[float, float, float] | None] = itertools.repeat(None)
    categories: Iterable[tuple[float | None, ...] | None] = itertools.repeat(None)
    if part.draft.tokens[:label_at] == label_tokens.label_prefix:
        labels = ((safe, controversial, unsafe) for safe, controversial, unsafe in reads.all_labels(first + label_at))
        categories = reads.all_categories(first + part.aside.read_at(part.draft))
    return is_whole, [
        Answer(
            like.raw,
            of_labels,
            part.rows[at].n_prompt,
            like.output_tokens,
            categories=of_categories,
            is_close=close,
            responds=like.responds,
            flaw=like.flaw,
        )
        for at, of_labels, of_categories, close in zip(
            np.flatnonzero(is_whole).tolist(), labels, categories, is_close, strict=False
        )
    ]
