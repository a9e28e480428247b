"""A family of models, and which one a tokenizer and its template belong to: found by probes, never by a name."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from worker.engine.families.template import Template

GUARD_ANSWER = "Safety:"  # a guard's template names the first line of its answers
OWN_LABELS = "abcdefgh"  # a policy of XGuard may define these
OWN_LABEL = re.compile(r"^[ \t]*-[ \t]*([a-z])[ \t]*:", re.MULTILINE)


@dataclass(frozen=True)
class Grammar:
    """The answers of a family that gives labels: the first token decides, and a written reason may follow.

    `labels` and what the model says for each, `words`, are in the same order; no other word is an answer. `own`: those of them that
    hold only where the policy defines them. `neutral` is the label that finds nothing. A reason is between `opens`, which follows
    the word, and `closes`.
    """

    labels: tuple[str, ...]
    words: tuple[str, ...]
    neutral: str | None
    opens: str
    closes: str
    own: frozenset[str] = frozenset()

    def allowed(self, policy: str | None) -> tuple[bool, ...]:
        """Return which labels an answer may have under a policy."""
        defined = set(OWN_LABEL.findall(policy or "")) if self.own else set()
        return tuple(word not in self.own or word in defined for word in self.words)

    def undefinable(self, policy: str) -> list[str]:
        """Return the labels of one letter that a policy defines but no answer may have."""
        return sorted(set(OWN_LABEL.findall(policy)) - self.own) if self.own else []


@dataclass(frozen=True)
class Family:
    """`grammar` None: Qwen3Guard's severities and categories. `is_complete`: its template has a policy when none is given."""

    name: str
    template: Template | None = None
    grammar: Grammar | None = None
    is_complete: bool = True
    takes_policy: bool = False


def family_of(tokenizer: Any) -> Family | None:
    """Return the family that a tokenizer's template is of; None if it is of none."""
    return next((found for probe in PROBES if (found := probe(tokenizer))), None)


def _qwen3guard(tokenizer: Any) -> Family | None:
    """Find the answers' first line in the template, of which the policy is a constant part."""
    return Family("qwen3guard") if GUARD_ANSWER in str(tokenizer.chat_template or "") else None


def _xguard(tokenizer: Any) -> Family | None:
    """Find the words of risks in the tokenizer's configuration; a policy may define more words, of one letter."""
    risks = tokenizer.init_kwargs.get("id2risk")
    if not isinstance(risks, dict) or not risks or not all(isinstance(part, str) for pair in risks.items() for part in pair):
        return None
    template = Template(tokenizer)
    if template.without_policy is None or "<explanation>" not in template.without_policy:
        return None
    takes_policy = template.shown is not None
    own = [letter for letter in OWN_LABELS if letter not in risks] if takes_policy else []
    labels = (*risks.values(), *(f"policy:{letter}" for letter in own))
    grammar = Grammar(labels, (*risks, *own), _safe(list(risks.values())), "\n<explanation>\n", "</explanation>", frozenset(own))
    return Family("xguard", template, grammar, takes_policy=takes_policy)


def _dynaguard(tokenizer: Any) -> Family | None:
    """Find rules and a transcript between tags, and the two words of an answer."""
    if not tokenizer.chat_template:
        return None
    template = Template(tokenizer, opens="<answer>\n")
    if template.shown is None:
        return None
    before, between, after = template.shown
    tags = (before, "<rules>"), (between, "</rules>"), (between, "<transcript>"), (after, "</transcript>")
    if not all(tag in part for part, tag in tags) or not re.search(r"PASS.*FAIL|FAIL.*PASS", before, re.DOTALL):
        return None
    rules = re.search(r".*<rules>(.*?)</rules>", template.without_policy or "", re.DOTALL)
    grammar = Grammar(("PASS", "FAIL"), ("PASS", "FAIL"), "PASS", "\n</answer>\n<explanation>\n", "</explanation>")
    return Family("dynaguard", template, grammar, is_complete=bool(rules and rules[1].strip()), takes_policy=True)


def _safe(labels: Sequence[str]) -> str | None:
    """Return the only label that ends in `safe`; None if several do, or none."""
    found = [label for label in labels if label.lower().rpartition("-")[2].strip() == "safe"]
    return found[0] if len(found) == 1 else None


PROBES: tuple[Callable[[Any], Family | None], ...] = (_qwen3guard, _xguard, _dynaguard)
