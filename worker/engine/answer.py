"""The guard's answer as a value: severity, categories, refusal, or None. Never raises, and nothing is safe by default.

An answer that contradicts itself is invalid: `Safe` with a category, `None` beside another category, a repeated category, a refusal
that was not asked for or is missing, `Jailbreak` for a response (its policy has no such category). `Unsafe` or `Controversial` with
`None` is valid: the text is harmful, but fits none of the policy's categories; calling it an error would soften it.
"""

import functools
import re
from dataclasses import dataclass

from guardfleet.domain.verdict import CATEGORY_NAMES, Category, Severity, categories_of
from guardfleet.verdicts import encoding
from guardfleet.verdicts.encoding import canonical_answer

LABELS = {label: severity for severity, label in encoding.LABELS.items()}
# The whole answer must match the grammar: a label somewhere in free prose is a sign of a wrong prompt, not a verdict.
# There are only some hundred different answers, so both directions are cached: they took a quarter of a worker's time per text.
# Case-sensitive, as the official parser is: with case ignored, "Non-violent" would also yield "Violent".
GRAMMAR = re.compile(r"Safety: (Safe|Controversial|Unsafe)\nCategories: ([^\n]+)(?:\nRefusal: (Yes|No))?")

NAMES = {  # category names of each mode, by whether a response is judged
    False: frozenset(CATEGORY_NAMES.values()),
    True: frozenset(name for bit, name in CATEGORY_NAMES.items() if bit is not Category.JAILBREAK),
}


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a valid answer says; `refusal` is None in prompt mode."""

    severity: Severity
    categories: Category = Category.NONE
    refusal: bool | None = None


@functools.lru_cache(maxsize=1024)
def parse(raw: str, *, responds: bool | None = None) -> Parsed | None:
    """Parse a mode's answer; None if it does not match the grammar or contradicts itself.

    `responds`: whether a response was judged; None: accept whichever mode the answer claims.
    """
    match = GRAMMAR.fullmatch(raw.strip())
    if match is None or responds not in (None, match[3] is not None):
        return None
    names = [name.strip() for name in match[2].split(",")]
    if names != ["None"] and not (set(names) <= NAMES[match[3] is not None] and len(set(names)) == len(names)):
        return None
    found = Parsed(
        LABELS[match[1]],
        categories_of(name for name in names if name != "None"),
        None if match[3] is None else match[3] == "Yes",
    )
    if found.severity is Severity.SAFE and (found.categories or raw != render(found)):  # `Safe` must match to the letter
        return None
    return found


@functools.lru_cache(maxsize=1024)
def understood(raw: str, responds: bool | None) -> tuple[Parsed, str | None] | None:
    """Parse a mode's answer; also return the raw text if it differs from the canonical rendering."""
    parsed = parse(raw, responds=responds)
    return None if parsed is None else (parsed, None if raw == render(parsed) else raw)


@functools.lru_cache(maxsize=1024)
def render(parsed: Parsed) -> str:
    """Render the canonical answer: parse(render(x)) == x. `raw` is stored only where it differs from this."""
    return canonical_answer(parsed.severity, parsed.categories, parsed.refusal)
