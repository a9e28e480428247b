"""Every face says about a verdict what the interpretation said: over 10,000 random judgements, 0 differences.

    python -m pytest -q tests/property/test_faces.py -s

prints how many were compared; `tests/store/test_faces.py` does the same through PostgreSQL.
"""

import datetime as dt
import json
import random
import types
import uuid
from dataclasses import replace

from api.openai.categories import COVERED, result_json, scores
from guardfleet.cli.evaluation import confusion
from guardfleet.domain.verdict import CATEGORY_CHOICES, CATEGORY_NAMES, NO_VERDICT, Judgement, Model, category_names
from guardfleet.verdicts.encoding import READ_COLUMNS, StoredVerdict, as_stored, encode
from guardfleet.verdicts.page import Cursor, Page
from tests.services.faces import PURE, Said, agrees, truth
from tests.services.judged import answered, any_judgement

N = 10_000
MODEL = Model("m", "0123456789abcdef", "p")
JOB = types.SimpleNamespace(public_id=uuid.UUID(int=7))
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def row_of(seq: int, judgement: Judgement) -> StoredVerdict:
    """The row that a worker would write, as it is read."""
    about = {
        "ord": 1,
        "seq": seq,
        "id": f"id{seq}",
        "model_id": 1,
        "done_at": NOW,
        "metadata": None,
        "evidence": judgement.evidence,
    }
    tokens = {"input_tokens": judgement.input_tokens, "output_tokens": judgement.output_tokens}
    values = about | tokens | encode(judgement)._asdict()
    return StoredVerdict(*(values[name] for name in READ_COLUMNS))


def test_all_faces_say_what_the_interpretation_said() -> None:
    rng = random.Random(17)
    judged = [any_judgement(rng) for _ in range(N)]
    page = Page([row_of(seq, judgement) for seq, judgement in enumerate(judged)], {1: MODEL}, Cursor())
    meant = [Said(judgement.severity, category_names(judgement.categories), judgement.refusal) for judgement in judged]
    differences = [seq for seq, row in enumerate(page.rows) if truth(row) != meant[seq]]
    for face in PURE.values():
        shown = face(JOB, page)
        assert len(shown) == N
        differences += [seq for seq in range(N) if not agrees(shown[seq], meant[seq])]
    print(f"{N:,} judgements through {len(PURE)} faces: {len(differences)} differences")  # noqa: T201 - the figure to quote
    assert differences == []


def test_evaluation_counts_what_would_be_stored() -> None:
    rng = random.Random(18)
    severities = [as_stored(any_judgement(rng)).severity for _ in range(N)]
    strict = confusion([True] * N, severities, strict=True)
    loose = confusion([True] * N, severities, strict=False)
    counts = [severities.count(severity) for severity in range(4)]
    assert (strict.true_positive, strict.false_negative) == (counts[1] + counts[2], counts[0])
    assert (loose.true_positive, loose.false_negative) == (counts[2], counts[1] + counts[0])


def test_a_text_with_more_doubt_never_has_a_lower_top_score() -> None:
    """For every value of P(safe) that can be stored, whatever was said and with whatever odds, the highest score is P(not safe)."""
    rng = random.Random(19)
    for byte in range(256):
        for _ in range(20):
            said = as_stored(any_judgement(rng))
            if said.severity not in NO_VERDICT:
                said = replace(said, probabilities=(byte / 255, 0.0, 0.0))
                shown = json.loads(result_json(row_of(0, said), MODEL))["category_scores"]
                assert max(shown.values()) == max(scores(said).values()) == round(1 - byte / 255, 3)
                assert all(shown[name] == max(shown.values()) for name, category in COVERED.items() if said.categories & category)


def test_with_equal_odds_scores_rise_with_doubt_in_every_category() -> None:
    odds = tuple(place / 45 for place in range(len(CATEGORY_CHOICES)))
    last = dict.fromkeys(CATEGORY_NAMES, 0.0)
    for byte in range(255, -1, -1):
        safe = byte / 255
        ranked = scores(as_stored(answered("Safety: Safe\nCategories: None", (safe, 1 - safe, 0.0), odds)))
        assert all(ranked[category] >= last[category] for category in CATEGORY_NAMES)
        assert list(ranked) == sorted(ranked, key=lambda category: ranked[category])  # as the odds are ordered
        last = ranked
    assert max(last.values()) == 1.0
