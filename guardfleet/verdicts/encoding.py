"""What the columns of the table `verdict` mean: the only way from a judgement to a row, and from a row to any output.

No code has a default: unknown or contradictory codes are an error verdict, never safe. Nothing here raises because of a row's
content, so a bad row costs no other row of its page. Standard library only, as `guardfleet.domain.verdict`.
"""

import datetime as dt
import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from guardfleet.domain.verdict import (
    CATEGORY_CHOICES,
    CATEGORY_NAMES,
    NO_VERDICT,
    Category,
    Judgement,
    ServedBy,
    Severity,
    category_names,
    failure,
)

KNOWN_CODES = 16_384  # about 10 MiB of judgements at most
ALL_CATEGORIES = sum(CATEGORY_NAMES)
CERTAIN = 255  # byte of probability 1; 0 is 0
CERTAIN_ODDS, UNKNOWN_ODDS = 254, 255  # bytes of a category's probability
PROBABILITIES = [byte / CERTAIN for byte in range(256)]
CATEGORY_PROBABILITIES = [*(byte / CERTAIN_ODDS for byte in range(UNKNOWN_ODDS)), None]
JUDGED: tuple[Severity, ...] = (Severity.SAFE, Severity.CONTROVERSIAL, Severity.UNSAFE)
LABELS = {severity: severity.name.capitalize() for severity in JUDGED}  # in the model's spelling
REFUSALS = {None: "", True: "\nRefusal: Yes", False: "\nRefusal: No"}


class Codes(NamedTuple):
    """The columns that hold the judgement, as stored. Only this module reads them; everybody else calls `decode`."""

    severity: int  # the number of a Severity
    categories: int  # bits of Category
    refusal: bool | None
    probabilities: bytes | None  # P(safe), P(controversial), P(unsafe)
    served_by: int  # the number of a ServedBy
    raw: str | None  # null: the model's answer was exactly `canonical_answer` of the other columns
    error: str | None
    error_detail: str | None
    category_odds: bytes | None  # one byte for each of CATEGORY_CHOICES


class StoredVerdict(NamedTuple):
    """A row of `verdict`: the values of READ_COLUMNS, in their order. `judgement` decodes them; `metadata` is JSON text."""

    ord: int
    seq: int
    id: str
    severity_code: int
    categories_code: int
    refusal_code: bool | None
    probabilities_code: bytes | None
    served_by_code: int
    raw_code: str | None
    error_code: str | None
    error_detail_code: str | None
    category_odds_code: bytes | None
    model_id: int
    input_tokens: int
    output_tokens: int
    done_at: dt.datetime
    metadata: str | None
    evidence: dict[str, Any] | None

    @property
    def codes(self) -> tuple[Any, ...]:
        """The values of `Codes`. Very many verdicts have equal ones, so caches are keyed by them."""
        return self[SAID]  # type: ignore[return-value]

    @property
    def judgement(self) -> Judgement:
        """The decoded judgement, without token counts and evidence."""
        return decode(self.codes)


READ_COLUMNS = tuple(name.removesuffix("_code") for name in StoredVerdict._fields)
SAID = slice(READ_COLUMNS.index(Codes._fields[0]), READ_COLUMNS.index(Codes._fields[-1]) + 1)


def encode(judgement: Judgement) -> Codes:
    """Encode a judgement for storage. One that contradicts itself, or whose probabilities are invalid, is stored as an error."""
    try:
        codes = Codes(
            int(judgement.severity),
            int(judgement.categories),
            judgement.refusal,
            None if judgement.probabilities is None else bytes([round(CERTAIN * p) for p in judgement.probabilities]),
            int(judgement.served_by),
            None if judgement.raw is None else storable(judgement.raw),
            judgement.error,
            None if judgement.error_detail is None else storable(judgement.error_detail),
            None
            if judgement.category_odds is None
            else bytes([UNKNOWN_ODDS if p is None else round(CERTAIN_ODDS * p) for p in judgement.category_odds]),
        )
    except (ValueError, OverflowError):  # NaN, infinite, or outside 0 to 1
        return encode(failure("unreadable", "its probabilities are none", raw=judgement.raw))
    reason = _wrong(codes)
    return codes if reason is None else encode(failure("unreadable", reason, raw=judgement.raw))


@functools.lru_cache(KNOWN_CODES)
def decode(codes: tuple[Any, ...]) -> Judgement:
    """Decode stored codes. Codes that this version does not know, or that contradict each other, become an error."""
    found = Codes._make(codes)
    reason = _wrong(found)
    if reason is not None:
        return failure("unreadable", reason, raw=found.raw)
    p, by_category = found.probabilities, found.category_odds
    return Judgement(
        Severity(found.severity),
        Category(found.categories),
        found.refusal,
        ServedBy(found.served_by),
        None if p is None else (PROBABILITIES[p[0]], PROBABILITIES[p[1]], PROBABILITIES[p[2]]),
        found.raw,
        error=found.error,
        error_detail=found.error_detail,
        category_odds=None if by_category is None else tuple([CATEGORY_PROBABILITIES[byte] for byte in by_category]),
    )


def severity_and_categories(severity: int, categories: int) -> tuple[Severity, Category]:
    """Decode these two columns where the others are not at hand."""
    served_by = ServedBy.NOBODY if severity == Severity.UNRATED else ServedBy.MODEL
    said = decode(Codes(severity, categories, None, None, served_by, None, *_error_of(severity), None))
    return said.severity, said.categories


def probability_bytes(least: float, most: float, digits: int = 3) -> tuple[int, int]:
    """Return the least and the greatest byte of the probabilities in this range, as they are shown; (1, 0) if there is none."""
    within = [byte for byte, p in enumerate(PROBABILITIES) if least <= round(p, digits) <= most]
    return (within[0], within[-1]) if within else (1, 0)


def as_stored(judgement: Judgement) -> Judgement:
    """Return the judgement as later readers get it."""
    return replace(
        decode(encode(judgement)),
        input_tokens=judgement.input_tokens,
        output_tokens=judgement.output_tokens,
        evidence=judgement.evidence,
    )


def is_stored_at_least(row: StoredVerdict, severity: int) -> bool:
    """Return whether the stored severity is that or a graver one, an unknown one being the gravest: as statements compare it."""
    return row.severity_code >= severity


def canonical_answer(severity: Severity, categories: Category, refusal: bool | None) -> str:
    """Return the model's answer that says exactly this. Raises KeyError for an error: the model has no word for it."""
    return f"Safety: {LABELS[severity]}\nCategories: {', '.join(category_names(categories)) or 'None'}{REFUSALS[refusal]}"


def to_plain(judgement: Judgement) -> list[Any]:
    """Return a judgement as JSON for an encrypted blob, its probabilities unrounded."""
    probabilities = [judgement.probabilities, judgement.category_odds]
    said = [int(judgement.severity), int(judgement.categories), judgement.refusal, int(judgement.served_by), judgement.raw]
    return [
        *said, judgement.error, judgement.error_detail, judgement.input_tokens, judgement.output_tokens, *probabilities,
        judgement.evidence,
    ]  # fmt: skip


def of_plain(values: Sequence[Any]) -> Judgement:
    """Return the judgement from `to_plain`'s JSON; an error if this version does not know its form."""
    try:
        severity, categories, refusal, served_by, raw, error, detail, n_in, n_out, probabilities, by_category, evidence = values
        kept = Judgement(
            Severity(severity),
            Category(categories),
            refusal,
            ServedBy(served_by),
            None if probabilities is None else tuple(probabilities),
            raw,
            n_in,
            n_out,
            error,
            detail,
            None if by_category is None else tuple(by_category),
            evidence,
        )
    except (TypeError, ValueError):
        return failure("unreadable", "a provisional verdict of another form")
    found = as_stored(kept)
    return kept if found.error == kept.error else found


def _wrong(codes: Codes) -> str | None:
    """Return why the codes are invalid, or None. The view `verdicts` checks the same, in the same order and words."""
    p, by_category = codes.probabilities, codes.category_odds
    lengths = None if p is None else len(p), None if by_category is None else len(by_category)
    return _wrong_of(codes.severity, codes.categories, codes.served_by, codes.error is not None, *lengths)


@functools.lru_cache(KNOWN_CODES)
def _wrong_of(
    severity: int, categories: int, served_by: int, has_error: bool, n_probabilities: int | None, n_categories: int | None
) -> str | None:
    return _unknown(severity, categories, served_by, n_probabilities, n_categories) or _contradiction(
        severity, categories, served_by, has_error=has_error
    )


def _unknown(severity: int, categories: int, served_by: int, n_probabilities: int | None, n_categories: int | None) -> str | None:
    if not Severity.UNRATED <= severity <= Severity.ERROR:
        return f"severity {severity}"
    if not 0 <= categories <= ALL_CATEGORIES:
        return f"categories {categories}"
    if not 0 <= served_by <= max(ServedBy):
        return f"served by {served_by}"
    if n_probabilities not in (None, len(LABELS)):
        return f"{n_probabilities} probabilities"
    if n_categories not in (None, len(CATEGORY_CHOICES)):
        return f"{n_categories} category odds"
    return None


def _contradiction(severity: int, categories: int, served_by: int, *, has_error: bool) -> str | None:
    contradictions = {
        "an error without a code, or a code without an error": (severity == Severity.ERROR) != has_error,
        "safe with categories": severity == Severity.SAFE and categories,
        "unrated, and yet judged": severity == Severity.UNRATED and (categories or served_by != ServedBy.NOBODY),
        "a severity that nobody gave": served_by == ServedBy.NOBODY and severity not in NO_VERDICT,
        "an empty text that is not safe": served_by == ServedBy.RULE_EMPTY and severity != Severity.SAFE,
        "an error that a list decided": served_by == ServedBy.LIST and severity == Severity.ERROR,
    }
    return next((words for words, is_so in contradictions.items() if is_so), None)


def _error_of(severity: int) -> tuple[str | None, None]:
    return ("failed" if severity == Severity.ERROR else None), None


def storable(value: str) -> str:
    """Replace what PostgreSQL's text cannot store, NUL and lone surrogates, by U+FFFD."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
