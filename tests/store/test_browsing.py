"""Verdicts over all jobs of a tenant: whatever is looked for and however short each look is, each is found once, in order."""

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from guardfleet.domain.decision import ACTIONS
from guardfleet.domain.verdict import CATEGORY_NAMES, ERROR_CODES, Category, Severity, category_names
from guardfleet.errors import AwayError, NotFoundError, RejectedError
from guardfleet.jobs.redecide import redecide
from guardfleet.policy.reading import read
from guardfleet.security.encryption import Keyring
from guardfleet.store import keys, models, verdicts
from guardfleet.store.browsing import details, pages, searching
from guardfleet.store.browsing.pages import Budget
from guardfleet.store.jobs import retention, views
from guardfleet.store.partitions import name_of
from guardfleet.store.policy import decisions, policies
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion
from guardfleet.store.shards.completion import Row
from guardfleet.verdicts import cursors
from guardfleet.verdicts.wanted import PROBABILITIES, Place, Wanted
from tests.services.detected import BOTH, ENDS, detected
from tests.services.judged import SAFE, UNSAFE, UNSURE, any_judgement
from tests.services.stored import LONG_AGO, MODEL, finish, finished_on, new_job, scalar, submit, took

TENANT = 1
STRICT = """
name: strict
default: allow
rules:
  - {id: a, when: {severity: unsafe}, action: block}
  - {id: b, when: {severity: controversial}, action: review}
"""
LOOSE = "name: loose\ndefault: flag\nerrors: block\n"
EXACT = Budget(look_s=600, statement_s=60)


def applied(db: Database, text: str, tenant_id: int = TENANT) -> None:
    version, _ = policies.add(db, tenant_id, read(text))
    policies.activate(db, version)


def filled(db: Database, keyring: Keyring, rng: random.Random, n_jobs: int = 12) -> None:
    """Jobs of two tenants: their shards finished in any order, some not at all, decided by policies that change meanwhile."""
    keys.create(db, keyring, tenant="elsewhere", name="k", scopes=("batches:read",))
    other = keys.tenant_id(db, "elsewhere")
    model_id = models.register(db, MODEL)
    for at in range(n_jobs):
        if at in (3, 7):
            applied(db, LOOSE if at == 7 else STRICT)
        tenant = other if at % 4 == 1 else TENANT
        size, asked = rng.randint(1, 7), BOTH if at % 3 == 2 else {}
        job = submit(db, keyring, rng.choice([1, 5, 30, 60]), shard_texts=size, new=new_job(**asked, tenant_id=tenant))
        job = views.get(db, job.public_id, tenant_id=tenant)
        nos = list(range(-(-job.total // size)))
        rng.shuffle(nos)
        for no in nos[: len(nos) - (at % 5 == 4)]:
            held = took(db, job, no)
            rows = [Row(f"id{held.first_seq + i}", any_judgement(rng), model_id=model_id) for i in range(held.n)]
            found = [detected(db, [rng.choice(ENDS) for _ in rows])] if asked else []
            assert completion.finish(db, held, rows, model_id=model_id, detected=found) is not None


def everything(db: Database) -> list[dict[str, Any]]:
    """All verdicts of the tenant in the order of pages, read job by job."""
    out = []
    for job in sorted(views.page(db, tenant_id=TENANT, after=None, limit=1000), key=lambda job: -job.id):
        cursor, more = verdicts.Cursor(), True
        while more:
            page = verdicts.page(db, job, cursor, limit=100)
            for row, said in zip(page.rows, page.fields(), strict=True):
                out.append({"job": job.public_id, "stored": row, **said})
            cursor, more = page.reached, bool(page.rows)
    return out


def walked(db: Database, wanted: Wanted, rng: random.Random) -> list[tuple[uuid.UUID, int]]:
    """What pages of random sizes and budgets find, one after the other; each page is held against its own promises."""
    out: list[tuple[uuid.UUID, int]] = []
    after, looked = None, 0
    for _ in range(10_000):
        limit = rng.choice([1, 2, 7, 50])
        budget = replace(
            EXACT, rows=rng.choice([1, 3, 20, 10_000]), first_rows=rng.choice([1, 5, 4000]), piece_s=rng.choice([0, 1])
        )
        page = pages.page(db, TENANT, wanted, after, limit=limit, budget=budget)
        assert len(page.hits) <= limit
        assert len(page.hits) == limit or not page.is_full
        assert page.looked >= looked
        out += [(hit.job.public_id, hit.row.seq) for hit in page.hits]
        if page.reached is None:
            assert page.looked == pages.total(db, TENANT, wanted.job)[0], "at the end, all were looked at"
            return out
        assert page.reached != after, "each page comes further"
        key = b"k" * 32
        after = cursors.unpack_place(cursors.pack_place(page.reached, tenant_id=TENANT, key=key), tenant_id=TENANT, keys=[key])
        looked = page.looked
    raise AssertionError("no end")


def any_wanted(rng: random.Random, rows: Sequence[dict[str, Any]]) -> tuple[dict[str, str], Callable[[dict[str, Any]], bool]]:
    """A random filter in words, and the same as a function of a verdict's fields."""
    one, asked, checks = rng.choice(rows), dict[str, str](), list[Callable[[dict[str, Any]], bool]]()

    def ask(name: str, value: Any, holds: Callable[[dict[str, Any]], bool]) -> None:
        if rng.random() < 0.25:
            asked[name] = str(value)
            checks.append(holds)

    severity, category = rng.choice(list(Severity)).label, rng.choice(list(CATEGORY_NAMES.values()))
    action, code, found = (
        rng.choice(ACTIONS),
        rng.choice(list(ERROR_CODES)),
        rng.choice(["found", "clear", "too_short", "error", "x"]),
    )
    ask("severity", severity, lambda row: row["severity"] == severity)
    ask("category", category, lambda row: category in row["categories"])
    ask("action", action, lambda row: row["action"] == action)
    ask("error", code, lambda row: row["error"] == code)
    ask("job", one["job"], lambda row: row["job"] == one["job"])
    ask("row", one["id"], lambda row: row["id"] == one["id"])
    ask("since", one["done_at"].isoformat(), lambda row: row["done_at"] >= one["done_at"])
    ask("until", one["done_at"].isoformat(), lambda row: row["done_at"] < one["done_at"])
    ask("detector", "finder", lambda row: row["detections"] is not None)
    if "detector" in asked:
        ask("label", found, lambda row: found in (row["detections"]["finder"]["label"], row["detections"]["finder"]["outcome"]))
    of = rng.choice(list(PROBABILITIES))
    least, most = sorted((round(rng.random(), 2), rng.choice([1.0, round(rng.random(), 3)])))
    ask("least", least, lambda row: row[f"p_{of}"] is not None and least <= row[f"p_{of}"])
    if "least" in asked:
        asked |= {"most": str(most), "of": of}
        checks.append(lambda row: row[f"p_{of}"] <= most)
    return asked, lambda row: all(holds(row) for holds in checks)


@pytest.mark.parametrize("seed", range(2))
def test_pages_are_what_reading_every_row_finds(db: Database, keyring: Keyring, seed: int) -> None:
    rng = random.Random(seed)
    filled(db, keyring, rng)
    rows = everything(db)
    assert {row["severity"] for row in rows} == {severity.label for severity in Severity}
    found = 0
    for _ in range(40):
        asked, holds = any_wanted(rng, rows)
        expected = [(row["job"], row["seq"]) for row in rows if holds(row)]
        assert walked(db, Wanted.of(asked), rng) == expected, asked
        found += len(expected)
    assert found


def test_what_a_page_shows_is_what_other_faces_say(db: Database, keyring: Keyring) -> None:
    filled(db, keyring, random.Random(7))
    by_place = {(row["job"], row["seq"]): row for row in everything(db)}
    shown = details.of_hits(db, pages.page(db, TENANT, Wanted(), limit=1000, budget=EXACT).hits)
    assert len(shown) == len(by_place)
    for row in shown:
        other = by_place[row["job"].public_id, row["seq"]]
        assert {name: row[name] for name in row if name not in ("job", "detections")} == {
            name: other[name] for name in row if name not in ("job", "detections")
        }
        one = details.one(db, TENANT, row["job"].public_id, row["seq"])
        assert one.said == {name: value for name, value in other.items() if name not in ("job", "stored")}


def test_a_text_is_told_with_what_every_version_decided(db: Database, keyring: Keyring) -> None:
    applied(db, STRICT)
    job = submit(db, keyring, 5, shard_texts=3)
    for no in (0, 1):
        finish(db, took(db, job, no), UNSAFE)
    shadow, _ = policies.add(db, TENANT, read("name: trial\nshadow: true\ndefault: flag\n"))
    policies.activate(db, shadow)
    loose, _ = policies.add(db, TENANT, read(LOOSE))
    for version in (shadow, loose):
        redecide(db, version, decisions.Scope(TENANT))
    one = details.one(db, TENANT, job.public_id, 4)
    assert [(made.decision.policy, made.decision.action, made.is_in_force, made.is_shadow) for made in one.decided] == [
        ("strict@1", "block", True, False), ("loose@1", "flag", False, False), ("trial@1", "flag", False, True),
    ]  # fmt: skip
    policies.activate(db, loose)
    assert details.one(db, TENANT, job.public_id, 4).decided[0].decision.policy == "loose@1"


def test_another_tenants_jobs_are_none(db: Database, keyring: Keyring) -> None:
    filled(db, keyring, random.Random(3))
    foreign = scalar(db, "select public_id from job where tenant_id <> 1 and done > 0 limit 1")
    assert all(hit.job.public_id != foreign for hit in pages.page(db, TENANT, Wanted(), limit=1000, budget=EXACT).hits)
    with pytest.raises(NotFoundError):
        pages.page(db, TENANT, Wanted(job=foreign), limit=1)
    with pytest.raises(NotFoundError):
        details.one(db, TENANT, foreign, 0)
    with pytest.raises(RejectedError):
        pages.page(db, TENANT, Wanted(), Place(foreign, 0, 0), limit=1)
    packed = cursors.pack_place(Place(foreign, 1, 2), tenant_id=2, key=b"k")
    with pytest.raises(RejectedError):
        cursors.unpack_place(packed, tenant_id=1, keys=[b"k"])


@pytest.mark.parametrize(
    "asked",
    [
        {"severity": "grave"}, {"category": "none"}, {"action": "delete"}, {"error": "x"}, {"least": "2"}, {"most": "nan"},
        {"least": "0.1", "of": "error"}, {"since": "today"}, {"until": "0001-01-01T00:00+23:00"}, {"job": "job_1"}, {"row": "a\0"},
        {"row": "x" * 1001}, {"label": "found"}, {"detector": "f\ud800"},
    ],
)  # fmt: skip
def test_a_filter_that_means_nothing_is_refused(asked: dict[str, str]) -> None:
    with pytest.raises(RejectedError):
        Wanted.of(asked)


def test_a_statement_that_takes_too_long_ends_the_look_and_never_loses_a_row(db: Database, keyring: Keyring) -> None:
    old, new = finished_on(db, keyring, LONG_AGO), submit(db, keyring, 3)
    finish(db, took(db, new, 0), UNSAFE)
    budget = Budget(look_s=600, statement_s=0.1)
    with db.begin() as somebody:
        somebody.execute(f"lock table {name_of('verdict', LONG_AGO)}")
        first = pages.page(db, TENANT, Wanted(), limit=100, budget=budget)
        assert [hit.job.id for hit in first.hits] == [new.id] * 3
        assert (first.reached, first.is_full) == (first.hits[-1].place, False)
        with pytest.raises(AwayError):  # after PATIENCE_S: there is no answer to give
            pages.page(db, TENANT, Wanted(), first.reached, limit=100, budget=budget)
    rest = pages.page(db, TENANT, Wanted(), first.reached, limit=100, budget=budget)
    assert [hit.job.id for hit in rest.hits] == [old.id] * 4
    assert (rest.reached, rest.looked) == (None, 7)


def test_words_are_found_in_texts_that_are_kept_and_in_no_others(db: Database, keyring: Keyring) -> None:
    kept, purged = submit(db, keyring, 30, shard_texts=4), submit(db, keyring, 8, shard_texts=4)
    other = submit(db, keyring, 9, shard_texts=4, mark=" Straße")
    for job in (kept, purged, other):
        for no in range(-(-job.total // 4)):
            finish(db, took(db, job, no), UNSURE if no % 2 else SAFE)
    retention.purge(db, [purged.id])
    assert _found(db, keyring, "TEXT 1") == [(other.id, 1), *((kept.id, seq) for seq in (1, *range(10, 20)))]
    assert _found(db, keyring, "straße") == [(other.id, seq) for seq in range(9)]
    assert _found(db, keyring, "text 1", Wanted(severity=Severity.CONTROVERSIAL, job=kept.public_id)) == [
        (kept.id, seq) for seq in (12, 13, 14, 15)
    ]
    assert _found(db, keyring, "text.1") == []
    assert _found(db, keyring, "text 1", Wanted(job=purged.public_id)) == []


def _found(db: Database, keyring: Keyring, words: str, wanted: Wanted | None = None) -> list[tuple[int, int]]:
    """What searches find, each of which reads one shard, or stops at its second hit."""
    out, after = [], None
    for _ in range(1000):
        found = searching.search(db, keyring, TENANT, wanted or Wanted(), words, after, limit=2, most_texts=1)
        out += [(hit.job.id, hit.row.seq) for hit in found.hits]
        assert all(excerpt.found.lower() == words.lower() for excerpt in found.excerpts)
        assert found.reached != after or after is None
        after = found.reached
        if after is None:
            return out
    raise AssertionError("no end")


def test_old_jobs_are_found_until_they_are_gone(db: Database, keyring: Keyring) -> None:
    old = finished_on(db, keyring, LONG_AGO)
    new = submit(db, keyring, 3)
    finish(db, took(db, new, 0), UNSAFE)
    page = pages.page(db, TENANT, Wanted(), limit=100, budget=EXACT)
    assert [hit.job.id for hit in page.hits] == [new.id] * 3 + [old.id] * 4
    with db.begin() as connection:
        connection.execute(f"update job set purged_at = now() where id = {old.id}")
    assert retention.expire(db, "verdict", LONG_AGO)
    assert [hit.job.id for hit in pages.page(db, TENANT, Wanted(), limit=100, budget=EXACT).hits] == [new.id] * 3
    with pytest.raises(RejectedError, match="gone"):
        pages.page(db, TENANT, Wanted(), Place(old.public_id, 1, 0), limit=1)


def test_categories_have_names() -> None:
    assert category_names(Wanted.of({"category": "PII"}).category or Category.NONE) == ["PII"]
