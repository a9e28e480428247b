"""What a report says of a job: its figures, who judged it, and a few examples; with their texts only if that is asked."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from guardfleet.domain.verdict import Severity, category_names
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit, verdicts
from guardfleet.store.jobs import figures, texts
from guardfleet.store.jobs.figures import OfLanguage, Rule, Tally
from guardfleet.store.jobs.retries import Places
from guardfleet.store.jobs.views import JobView
from guardfleet.store.labels import labels
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts.page import Content

GRAVE = (Severity.UNSAFE, Severity.CONTROVERSIAL)
EXAMPLES, MOST_EXAMPLES = 5, 100  # of each severity
MOST_SHOWN = 2000  # characters of a text


@dataclass(frozen=True, slots=True)
class Example:
    """A text by its id, what was said of it, and its turns as role and text; without any, it is not told or no longer there."""

    verdict: Mapping[str, Any]
    turns: Sequence[tuple[str | None, str, int]] = ()  # the last: how many characters are cut off


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the page shows. `texts_kept`: None: they were not asked for."""

    job: JobView
    made_at: dt.datetime
    price: float | None
    tally: Tally
    languages: Sequence[OfLanguage]
    rules: Sequence[Rule]
    refused: Mapping[str, int]
    labelled: int
    examples: Sequence[Example]
    texts_kept: bool | None

    @property
    def severities(self) -> dict[Severity, int]:
        """Texts by severity, mild to grave, those that there are."""
        counts: Counter[Severity] = Counter()
        for (severity, _), n in self.tally.said.items():
            counts[severity] += n
        return {severity: counts[severity] for severity in sorted(counts, key=lambda one: one % 5) if counts[severity]}

    @property
    def categories(self) -> list[tuple[str, Counter[Severity]]]:
        """Texts by category, the most first; a text may be in several. An empty name: harmful, and in none."""
        found: dict[str, Counter[Severity]] = {}
        for (severity, categories), n in self.tally.said.items():
            for name in (category_names(categories) or [""]) if severity in GRAVE else ():
                found.setdefault(name, Counter())[severity] += n
        return sorted(found.items(), key=lambda pair: -pair[1].total())

    @property
    def languages_left_out(self) -> int:
        """How many texts are in languages that are not shown, if any is."""
        return self.tally.texts - sum(one.severities.total() for one in self.languages) if self.languages else 0

    @property
    def seconds(self) -> float | None:
        """From the first verdict's shard to the last; None before."""
        job = self.job
        return None if job.started_at is None or job.progressed_at is None else (job.progressed_at - job.created_at).total_seconds()


def gather(
    db: Database, keyring: Keyring | None, job: JobView, *, price: float | None, examples: int = EXAMPLES, with_text: bool = False
) -> Report:
    """Gather the report of a job. With texts it is an export, and recorded as one; those that are purged are left out."""
    if with_text:
        audit.note(db, job.tenant_id, "job.export", job.label, what="report", format="html", with_text=True)
    shows = with_text and job.purged_at is None and keyring is not None
    seqs = figures.drawn(db, job, of_each=examples) if examples else []
    known = _contents(db, keyring, job, seqs) if shows and keyring is not None else {}
    return Report(
        job=job,
        made_at=dt.datetime.now(dt.UTC),
        price=price,
        tally=figures.tally(db, job),
        languages=figures.by_language(db, job),
        rules=figures.by_rule(db, job),
        refused=figures.refused_by_code(db, job),
        labelled=labels.labelled(db, job.id),
        examples=[
            Example(said, _turns(known.get(said["seq"])))
            for said in (verdicts.of_texts(db, job.id, job.day, seqs).fields() if seqs else ())
        ],
        texts_kept=shows if with_text else None,
    )


def _contents(db: Database, keyring: Keyring, job: JobView, seqs: Sequence[int]) -> dict[int, Content]:
    """Return these texts by their places, those that are still there; each shard is decrypted once."""
    where, out = Places(db, job), dict[int, Content]()
    for place, of_shard in groupby(sorted(seqs), key=where.of):
        if place is None:
            continue
        shard_no, first = place
        rows = texts.of_shard(db, keyring, job, shard_no)
        out |= {seq: rows[seq - first].content for seq in of_shard if seq - first < len(rows) and not rows[seq - first].is_erased}
    return out


def _turns(content: Content | None) -> list[tuple[str | None, str, int]]:
    if content is None:
        return []
    told = [(None, content)] if isinstance(content, str) else [(one["role"], one["content"]) for one in content]
    return [(role, text[:MOST_SHOWN], max(0, len(text) - MOST_SHOWN)) for role, text in told]
