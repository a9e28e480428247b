"""The lines by which a model's template tells turns apart, and texts that hold such lines themselves.

A text with `USER: ...` on a line of its own gives the same tokens as a conversation of two turns, and the template asks about the
last one alone. Which lines these are is found by rendering, not written down here.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
UNSEEN = "\u200b\u200c\u200d\u2060\ufeff"  # of no width, and so no protection
DOT = "\u00b7"  # what the last character of a label becomes: one for one, so that offsets stay, and no colon in any script
SHAPES = (("user",), ("user", "assistant"), ("user", "assistant", "user"), ("system", "user"))
MARKED = re.compile("\ue000\\d+\ue001")


@dataclass(frozen=True)
class Labels:
    """The beginnings of lines that make a turn, or begin or end the conversation, in one model's prompts."""

    lines: tuple[str, ...]

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        either = "|".join(map(re.escape, sorted(self.lines, key=len, reverse=True)))
        return re.compile(rf"(?:\A|(?<=[{LINE_ENDS}]))(?:[^\S{LINE_ENDS}]|[{UNSEEN}])*(?:{either})")

    def count(self, text: str) -> int:
        """How many lines of a text begin like a turn."""
        return len(self._pattern.findall(text)) if self._may_have_some(text) else 0

    def neutralised(self, text: str) -> str:
        """The text with a dot in place of the last character of each label: as long as before, and no turn."""
        return self._pattern.sub(lambda found: found[0][:-1] + DOT, text) if self._may_have_some(text) else text

    def _may_have_some(self, text: str) -> bool:
        return any(line in text for line in self.lines)  # most texts have none: a pattern costs a hundred times as much


def labels_of(render: Callable[[Sequence[Mapping[str, str]]], str]) -> Labels:
    """What stands before each message, before the first and behind the last, by the model's template."""
    found: dict[str, None] = {}
    for shape in SHAPES:
        try:
            marked = render([{"role": role, "content": f"\ue000{at}\ue001"} for at, role in enumerate(shape)])
        except Exception:  # noqa: BLE001, S112 - the template's own: it takes no such conversation, and so has no labels of it
            continue
        parts = MARKED.split(marked)
        for before in parts[:-1]:
            found[before.rpartition("\n")[2].strip()] = None
        found[parts[0].rpartition("\n")[0].rstrip().rpartition("\n")[2].strip()] = None
        found[parts[-1].lstrip().partition("\n")[0].strip()] = None
    return Labels(tuple(line for line in found if line))
