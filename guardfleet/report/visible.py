"""Make every character of a value visible: nothing that a page shows can hide, reorder or imitate what is around it."""

import re
import unicodedata

from markupsafe import Markup

# Controls, format characters (bidi overrides, joiners, tags), separators of lines, surrogates, private use, unassigned.
HIDDEN = ("Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn")
KEPT = "\n\t"
MOST_MARKS = 3  # combining marks on one letter, as far as languages use them
COMBINING = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
MARKS = re.compile(f"({COMBINING}{{{MOST_MARKS}}}){COMBINING}+")
SUSPECT = re.compile(r"[^\x20-\x7e\n\u00c0-\u024f\u0400-\u045f\u3041-\u30ff\u4e00-\u9fff\uac00-\ud7a3]")


class Exact(str):
    """A value that a page holds as it is, such as a field that is sent back; it is escaped all the same."""

    __slots__ = ()


def visible(value: object) -> object:
    """Return what a template may print: strings with hidden characters written out, as ⟨U+202E⟩; anything else as it is."""
    if not isinstance(value, str) or isinstance(value, (Markup, Exact)):
        return value
    return written_out(value)


def written_out(text: str) -> str:
    """Write hidden characters out, and cut towers of combining marks down."""
    if not SUSPECT.search(text):
        return text
    return SUSPECT.sub(lambda found: _written_out(found.group()), MARKS.sub(r"\1⟨…⟩", text))


def _written_out(character: str) -> str:
    hidden = unicodedata.category(character) in HIDDEN and character not in KEPT
    return f"⟨U+{ord(character):04X}⟩" if hidden else character
