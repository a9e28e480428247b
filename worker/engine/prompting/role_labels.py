"""The labels by which a model's template separates turns, and texts that contain such lines themselves.

A text with `USER: ...` on a line of its own gives the same tokens as a conversation of two turns, and the template asks only about
the last one. The labels are found by rendering, not hard-coded.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
UNSEEN = "\u200b\u200c\u200d\u2060\ufeff"  # zero-width, so they give no protection
DOT = "\u00b7"  # replaces the last character of a label: one for one, so that offsets stay; not a colon in any script
SHAPES = (("user",), ("user", "assistant"), ("user", "assistant", "user"), ("system", "user"))
MARKED = re.compile("\ue000\\d+\ue001")
SECTION = re.compile(r"#+ .+|\[[^\]\n]+\]")  # at the beginning of a line
TAG = re.compile(r"</?([A-Za-z_]+)>")


@dataclass(frozen=True)
class Labels:
    """The line beginnings that start a turn, or begin or end the conversation, in one model's prompts.

    `tags`: names of tags, which end or begin a section in the middle of a line too, in any case of letters.
    """

    lines: tuple[str, ...]
    tags: tuple[str, ...] = ()

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        at_begin = rf"(?:\A|(?<=[{LINE_ENDS}]))(?:[^\S{LINE_ENDS}]|[{UNSEEN}])*(?:{_either(self.lines)})"
        gap = rf"[\s{UNSEEN}]*"
        return re.compile(rf"{at_begin}|(?i:<{gap}/?{gap}(?:{_either(self.tags)}){gap}>)" if self.tags else at_begin)

    def count(self, text: str) -> int:
        """Count the lines of a text that begin like a turn."""
        return len(self._pattern.findall(text)) if self._may_have_some(text) else 0

    def neutralised(self, text: str) -> str:
        """Replace the last character of each label by a dot: the length stays the same, and no turn begins."""
        return self._pattern.sub(lambda found: found[0][:-1] + DOT, text) if self._may_have_some(text) else text

    def _may_have_some(self, text: str) -> bool:
        if self.tags and "<" in text:
            return True
        return any(line in text for line in self.lines)  # most texts have none: a pattern costs a hundred times as much


def _either(several: tuple[str, ...]) -> str:
    """Return a pattern of any of these, the shortest first: one that begins another would stay if the other lost its end."""
    return "|".join(map(re.escape, sorted(several, key=len)))


def with_sections(labels: Labels, frame: str) -> Labels:
    """Add the marks of sections in the constant part of a prompt: tags, headings, and names in brackets.

    A line that holds a tag is no label any more: it would lose its last character, and the tag before that would stay.
    """
    lines = [found[0].strip() for line in frame.splitlines() if (found := SECTION.match(line))]
    kept = (line for line in (*labels.lines, *lines) if not TAG.search(line))
    return Labels(tuple(dict.fromkeys(kept)), tuple(dict.fromkeys(TAG.findall(frame))))


def labels_of(render: Callable[[Sequence[Mapping[str, str]]], str]) -> Labels:
    """Find what the model's template puts before each message, before the first and after the last."""
    found: dict[str, None] = {}
    for shape in SHAPES:
        try:
            marked = render([{"role": role, "content": f"\ue000{at}\ue001"} for at, role in enumerate(shape)])
        except Exception:  # noqa: BLE001, S112 - raised by the template: it accepts no such conversation, so has no labels for it
            continue
        parts = MARKED.split(marked)
        for before in parts[:-1]:
            found[before.rpartition("\n")[2].strip()] = None
        found[parts[0].rpartition("\n")[0].rstrip().rpartition("\n")[2].strip()] = None
        found[parts[-1].lstrip().partition("\n")[0].strip()] = None
    return Labels(tuple(line for line in found if line))
