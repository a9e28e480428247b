"""Human labels: who says what a text is, and whose word counts where several have spoken.

Which one counts of several labels of a text:

1. Of each source and author only the newest: a person may change their mind.
2. Of these, those of the gravest source alone, in the order of `Source`: an appeal was decided with the case in hand and after all
   others, a golden label was agreed on before, a reviewer is paid to look, a customer and whoever calls `suggestscore` speak for
   themselves. Of appeals only the newest counts, whoever decided it: it is a decision, not a vote.
3. Of several authors of one source, the severity that most of them give; of a tie the graver, since what is in doubt is not safe.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from guardfleet.domain.verdict import Category, Severity

MOST_AUTHOR = 100  # characters


class Source(IntEnum):
    """Where a label comes from; stored as its number. A higher one outranks a lower."""

    SUGGESTSCORE = 0
    CUSTOMER = 1
    REVIEWER = 2
    GOLDEN = 3
    APPEAL = 4

    @property
    def label(self) -> str:
        """The name in files, URLs and commands."""
        return self.name.lower()


REVIEWS = (Source.REVIEWER, Source.GOLDEN, Source.APPEAL)  # take a text out of the review queue: somebody was asked to look
BY_DESIGN = (Source.REVIEWER, Source.GOLDEN)  # made for whatever text was drawn: the others choose their texts themselves


@dataclass(frozen=True, slots=True)
class Label:
    """What one author says of a text. A higher `id` is newer."""

    id: int
    source: Source
    author: str
    severity: Severity
    categories: Category = Category.NONE


def counting(labels: Iterable[Label]) -> Label | None:
    """Return the label that counts of one text's; None if there are none."""
    newest: dict[tuple[Source, str], Label] = {}
    for one in sorted(labels, key=lambda label: label.id):
        newest[one.source, "" if one.source is Source.APPEAL else one.author] = one
    if not newest:
        return None
    best = max(one.source for one in newest.values())
    among = [one for one in newest.values() if one.source is best]
    votes = Counter(one.severity for one in among)
    severity = max(votes, key=lambda said: (votes[said], said))
    return max((one for one in among if one.severity is severity), key=lambda label: label.id)
