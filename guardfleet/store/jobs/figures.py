"""Figures over all texts of a job, counted by PostgreSQL: a report of a million texts reads no text row by row."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from guardfleet.domain.verdict import Category, ServedBy, Severity
from guardfleet.policy.document import Action
from guardfleet.store.jobs.views import JobView
from guardfleet.store.policy import decisions
from guardfleet.store.policy.decisions import Reads
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts.encoding import JUDGED, PROBABILITIES, Codes, decode, severity_and_categories

BINS = 10  # of P(not safe), each a tenth wide
MOST_LANGUAGES, MOST_LANGUAGE = 20, 40  # shown ones, and characters of one
MOST_RULES, MOST_CODES = 100, 50


@dataclass(frozen=True)
class Tally:
    """Counts of texts: `doubt[bin]` by severity, of those with probabilities."""

    said: Counter[tuple[Severity, Category]] = field(default_factory=Counter)
    served_by: Counter[ServedBy] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    doubt: list[Counter[Severity]] = field(default_factory=lambda: [Counter() for _ in range(BINS)])

    @property
    def texts(self) -> int:
        """How many texts were counted."""
        return self.said.total()

    @property
    def rated(self) -> int:
        """How many have probabilities."""
        return sum(one.total() for one in self.doubt)

    @property
    def fullest(self) -> int:
        """How many texts are in the fullest bin."""
        return max(one.total() for one in self.doubt)


class OfLanguage(NamedTuple):
    """Texts of one language, as their metadata name it; None: it names none."""

    language: str | None
    severities: Counter[Severity]


class Rule(NamedTuple):
    """Of how many texts a rule in force decided; `rule` None: the policy's default, or its action for texts without a verdict."""

    policy: str
    rule: str | None
    action: str
    n: int


def summary(db: Database, job: JobView) -> dict[tuple[Severity, Category], int]:
    """Count texts by severity and categories; reads all verdicts of the job."""
    with db.begin() as connection:
        rows = connection.execute(
            "select severity, categories, count(*) as n from verdict where job_id = %(job)s and day = %(day)s group by 1, 2",
            {"job": job.id, "day": job.day},
        )
        counts: Counter[tuple[Severity, Category]] = Counter()
        for severity, categories, n in rows:
            counts[severity_and_categories(severity, categories)] += n
        return counts


def tally(db: Database, job: JobView) -> Tally:
    """Count the job's verdicts; reads all of them, in the database."""
    with db.session() as connection:
        rows = connection.execute(
            """select severity, categories, served_by, error, count(*) as n,
                      case when octet_length(probabilities) = 3 then get_byte(probabilities, 0) end as safe
               from verdict where job_id = %(job)s and day = %(day)s
               group by severity, categories, served_by, error, safe""",
            _of(job),
        ).fetchall()
    found = Tally()
    for row in rows:
        said = decode(Codes(row.severity, row.categories, None, None, row.served_by, None, row.error, None, None))
        found.said[said.severity, said.categories] += row.n
        found.served_by[said.served_by] += row.n
        if said.error is not None:
            found.errors[said.error] += row.n
        if row.safe is not None and said.severity in JUDGED:
            found.doubt[min(BINS - 1, int(BINS * (1 - PROBABILITIES[row.safe])))][said.severity] += row.n
    return found


def by_language(db: Database, job: JobView) -> list[OfLanguage]:
    """Return the languages with the most texts, those first; empty if no text's metadata name one."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select language, severity, n from (
                  select x.*, dense_rank() over (order by total desc, language) as place from (
                    select left({Reads.SLICES.value}, {MOST_LANGUAGE}) as language, v.severity, count(*) as n,
                           sum(count(*)) over (partition by left({Reads.SLICES.value}, {MOST_LANGUAGE})) as total
                    from verdict v where v.job_id = %(job)s and v.day = %(day)s group by 1, 2) x) y
                where place <= {MOST_LANGUAGES} order by place""",
            _of(job),
        ).fetchall()
    found: dict[str | None, Counter[Severity]] = {}
    for row in rows:
        severity, _ = severity_and_categories(row.severity, 0)
        found.setdefault(row.language, Counter())[severity] += row.n
    return [OfLanguage(*one) for one in found.items()] if found.keys() - {None} else []


def by_rule(db: Database, job: JobView) -> list[Rule]:
    """Return of how many texts each rule decided, by the policies in force, the most first."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select p.name || '@' || p.version as policy, o.rule, o.action, count(*) as n
                from job j join tenant t on t.id = j.tenant_id cross join lateral {decisions.IN_FORCE} f
                cross join lateral generate_series(0, f.n - 1) i
                join policy p on p.id = f.policy_id
                join policy_outcome o on o.policy_id = f.policy_id and o.outcome = get_byte(f.outcomes, i)
                where j.id = %(job)s group by 1, 2, 3 order by n desc, 1, 2 limit {MOST_RULES}""",
            _of(job),
        ).fetchall()
    return [Rule(row.policy, row.rule, Action(row.action).label, row.n) for row in rows]


def refused_by_code(db: Database, job: JobView) -> dict[str, int]:
    """Return how many input lines were refused with each code, the most first."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select code, sum(coalesce(last_line, line) - line + 1)::int8 as n from rejection where job_id = %(job)s
                group by code order by n desc, code limit {MOST_CODES}""",
            _of(job),
        ).fetchall()
    return {row.code: row.n for row in rows}


def drawn(db: Database, job: JobView, *, of_each: int) -> list[int]:
    """Return the places of so many texts of each severity but safe, the gravest first: drawn as if by lot, always the same."""
    with db.session() as connection:
        return connection.scalars(
            """select v.seq from unnest(%(severities)s::int2[]) with ordinality s (severity, place)
               cross join lateral (
                 select seq from verdict
                 where job_id = %(job)s and day = %(day)s and severity = s.severity
                 order by hashint4(seq), seq limit %(of_each)s) v
               order by s.place, v.seq""",
            _of(job) | {"of_each": of_each, "severities": [Severity.UNSAFE, Severity.CONTROVERSIAL, Severity.ERROR]},
        )


def _of(job: JobView) -> dict[str, Any]:
    return {"job": job.id, "day": job.day}
