"""What is wrong with a policy that is well-formed: rules that can never fire, names that come twice, errors that pass."""

from collections.abc import Iterator

from guardfleet.domain.detection import SAID, Outcome
from guardfleet.domain.verdict import Severity
from guardfleet.policy.document import Bounds, Detected, Policy, Rule, Tokens, When
from guardfleet.verdicts.encoding import CERTAIN

Place = tuple[str | int, ...]
SLACK = 1.5 / CERTAIN  # three probabilities, each rounded as it is stored, add up to so much more than 1 at most
WHOLE = Bounds.model_construct(at_least=0.0, below=None)
ANY_LENGTH = Tokens.model_construct(at_least=0, at_most=None)
SILENT = {one.label for one in Outcome if one not in SAID}  # outcomes that say nothing of the text
OF_SEVERITY = {Severity.SAFE: "safe", Severity.CONTROVERSIAL: "controversial", Severity.UNSAFE: "unsafe"}


def unsound(policy: Policy) -> Iterator[tuple[Place, str]]:
    """Yield what is wrong and where: the place in the document, and the cause."""
    if policy.errors == "allow" and not policy.allow_errors:
        yield ("errors",), "a text without a verdict would be allowed: say `allow_errors: true` if that is meant"
    seen: dict[str, int] = {}
    for at, rule in enumerate(policy.rules):
        here: Place = ("rules", at)
        if rule.id in seen:
            yield (*here, "id"), f"rule {rule.id!r} stands here twice"
        seen.setdefault(rule.id, at)
        if rule.action == "allow" and not policy.allow_errors and (whose := unjudged(rule.when)):
            yield (*here, "action"), f"{whose} would be allowed: say `allow_errors: true` if that is meant"
        if cause := never(rule.when):
            yield (*here, "when"), f"rule {rule.id!r} can never fire: {cause}"
        elif earlier := shadowing(policy.rules[:at], rule):
            names = ", ".join(repr(one.id) for one in earlier)
            yield here, f"rule {rule.id!r} can never fire: whatever it holds for, {names} before it holds for"


def unjudged(when: When) -> str | None:
    """Return which texts that nobody could judge, or that nobody was asked about, the conditions can hold for; None for none."""
    if Severity.ERROR in when.severities:
        return "a text without a verdict"
    if failing := [name for name, wanted in when.detectors.items() if Outcome.ERROR.label in (wanted.label or ())]:
        return f"a text that {failing[0]} could not judge"
    if Severity.UNRATED in when.severities and not any(map(_is_finding, when.detectors.values())):
        return "a text that neither the guard nor a detector has judged"
    return None


def _is_finding(wanted: Detected) -> bool:
    """Return whether this holds only for texts that the detector has judged."""
    return bool(wanted.scores) or not set(wanted.label or SILENT) & SILENT


def never(when: When) -> str | None:
    """Return why the conditions can never hold together, or None."""
    if when.category is not None and when.severities <= {Severity.SAFE}:
        return "a safe text has no category"
    least = sum(when.probability.get(name, WHOLE).at_least for name in OF_SEVERITY.values())
    if least > 1 + SLACK:
        return f"its probabilities add up to {least:g}"
    most = min(sum(_most(when, name) for name in OF_SEVERITY.values()), _most(when, "safe") + _most(when, "not_safe"))
    if most < 1 - SLACK:
        return "its probabilities add up to less than 1"
    risk = when.probability.get("not_safe")
    if risk is not None:
        inner = [when.probability.get(name, WHOLE).at_least for name in ("controversial", "unsafe")]
        if risk.below is not None and sum(inner) - SLACK >= risk.below:
            return f"not_safe is below {risk.below:g}, and what it is made of is at least {sum(inner):g}"
        if risk.at_least + when.probability.get("safe", WHOLE).at_least > 1 + SLACK:
            return "safe and not_safe add up to more than 1"
    return None


def _most(when: When, name: str) -> float:
    below = when.probability.get(name, WHOLE).below
    return 1.0 if below is None else below


def shadowing(earlier: tuple[Rule, ...] | list[Rule], rule: Rule) -> list[Rule]:
    """Return the earlier rules that leave nothing for this one, severity by severity; none if something is left."""
    severities, found = rule.when.severities, list[Rule]()
    wider = [one for one in earlier if one.when.severities & severities and _covers(one.when, rule.when)]
    for severity in sorted(severities):
        cover = next((one for one in wider if severity in one.when.severities), None)
        if cover is None:
            return []
        if cover not in found:
            found.append(cover)
    return found


def _covers(wide: When, narrow: When) -> bool:
    """Return whether, for texts of a severity that both name, `wide` holds wherever `narrow` does."""
    if wide.refusal is not None and wide.refusal is not narrow.refusal:
        return False
    if not _within(wide.tokens, narrow.tokens):
        return False
    if not all(_is_inside(narrow.probability.get(name), bounds) for name, bounds in wide.probability.items()):
        return False
    if any(narrow.detectors.get(name) != wanted for name, wanted in wide.detectors.items()):
        return False
    return all(name in narrow.listed and narrow.listed[name] <= values for name, values in wide.listed.items())


def _within(wide: Tokens | None, narrow: Tokens | None) -> bool:
    if wide is None:
        return True
    inner = narrow or ANY_LENGTH
    is_below = wide.at_most is None or (inner.at_most is not None and inner.at_most <= wide.at_most)
    return is_below and inner.at_least >= wide.at_least


def _is_inside(narrow: Bounds | None, wide: Bounds) -> bool:
    if narrow is None:
        return False
    is_below = wide.below is None or (narrow.below is not None and narrow.below <= wide.below)
    return is_below and narrow.at_least >= wide.at_least
