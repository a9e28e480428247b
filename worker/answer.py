"""The guard's answer as a value: severity, categories, refusal, or `None`. Total: no input raises, none is safe by default."""

import functools
import re
from dataclasses import dataclass

from guardfleet.verdict import CATEGORY_NAMES, Category, Severity, categories_of, category_names

LABELS = {"Safe": Severity.SAFE, "Controversial": Severity.CONTROVERSIAL, "Unsafe": Severity.UNSAFE}
# The whole answer must be in the grammar: a label somewhere in free prose is a sign of a wrong prompt, not a verdict.
# There are some hundred different answers, so both ways are remembered: they were a quarter of a worker's time per text.
# Case-sensitive, as the official parser is: with case ignored, "Non-violent" would also yield "Violent".
GRAMMAR = re.compile(r"Safety: (Safe|Controversial|Unsafe)\nCategories: ([^\n]+)(?:\nRefusal: (Yes|No))?")


@dataclass(frozen=True, slots=True)
class Parsed:
    """What an answer in the grammar says; `refusal` is None in prompt mode."""

    severity: Severity
    categories: Category = Category.NONE
    refusal: bool | None = None


@functools.lru_cache(maxsize=1024)
def parse(raw: str) -> Parsed | None:
    """The answer's fields; None when it is not in the grammar."""
    match = GRAMMAR.fullmatch(raw.strip())
    if match is None:
        return None
    names = [name.strip() for name in match[2].split(",")]
    known = set(CATEGORY_NAMES.values()) | {"None"}
    if not set(names) <= known:
        return None
    categories = categories_of(name for name in names if name != "None")
    return Parsed(LABELS[match[1]], categories, None if match[3] is None else match[3] == "Yes")


@functools.lru_cache(maxsize=1024)
def render(parsed: Parsed) -> str:
    """The canonical answer: parse(render(x)) == x. What is stored leaves `raw` out where the two are equal."""
    label = next(label for label, severity in LABELS.items() if severity is parsed.severity)
    lines = [f"Safety: {label}", f"Categories: {', '.join(category_names(parsed.categories)) or 'None'}"]
    if parsed.refusal is not None:
        lines.append(f"Refusal: {'Yes' if parsed.refusal else 'No'}")
    return "\n".join(lines)
