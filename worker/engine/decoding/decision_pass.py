"""A pass that decides: whole prompts behind the prefixes of their policies, of each only the last token is read."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from worker.engine.decoding.policy_prefixes import Use
from worker.engine.forward.geometry import Ints, Prefix, Rows


@dataclass(frozen=True, slots=True, eq=False)
class PolicyRow:
    """A tokenised prompt: the ids behind its policy's prefix, or all of them if it does not begin with that.

    `use` keeps the policy while the row is under way. `is_too_short`: no pass is needed to say so.
    """

    ids: npt.NDArray[np.int32]
    use: Use
    n_prompt: int
    is_behind: bool = True
    is_too_short: bool = False
    n_tokens: int = field(default=0)


class DecisionPass:
    """Rows sorted by prefix, so that each prefix is asked once. `order`: their indices in the given batch."""

    def __init__(self, rows: Sequence[PolicyRow], prefixes: Sequence[Prefix]) -> None:
        self.order = sorted(range(len(rows)), key=lambda i: id(prefixes[i]))
        self.ids: Ints = np.concatenate([rows[i].ids for i in self.order], dtype=np.int64)
        lengths = [len(rows[i].ids) for i in self.order]
        self.geometry = Rows(lengths, [1] * len(rows), [prefixes[i] for i in self.order])
