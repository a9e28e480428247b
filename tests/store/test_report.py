"""A job's report on real rows: what it counts, what it shows of whom, and that nothing in it runs."""

import pathlib
import random
import re
from collections import Counter

from guardfleet.domain.verdict import Judgement, Severity
from guardfleet.jobs.intake import Intake
from guardfleet.policy.document import Policy
from guardfleet.report.contents import gather
from guardfleet.report.rendering import render
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import audit, models, verdicts
from guardfleet.store.jobs import figures, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.policy import policies
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion
from guardfleet.store.shards.completion import Row
from tests.services.commands import said
from tests.services.detected import ENDS, finished
from tests.services.fixtures import SECRET_KEY
from tests.services.judged import SAFE, UNSAFE, UNSURE, any_judgement, failed
from tests.services.poison import change
from tests.services.stored import MODEL, new_job, took

HOSTILE = "<script>alert(1)</script>\u202e{{ 7 * 7 }}\"'&"
MIXED = [SAFE, SAFE, SAFE, UNSAFE, UNSURE, failed("too_long")]


def judged(db: Database, keyring: Keyring, said: list[Judgement], metadata: object = None, *, name: str = "test") -> JobView:
    """A finished job of these judgements, in shards of four; `metadata` of each text by its place, if they differ."""
    with Intake(db, keyring, load_settings(shard_texts=4), new_job(name)) as intake:
        intake.add_all((i + 1, PayloadRow(f"{name}-{i}", f"words {i} of {name}")) for i in range(len(said)))
        job = intake.seal()
    model_id = models.register(db, MODEL)
    for no in range(-(-len(said) // 4)):
        held = took(db, job, no)
        rows = [
            Row(f"{name}-{i}", said[i], None, metadata[i] if isinstance(metadata, list) else metadata)
            for i in range(held.first_seq, held.first_seq + held.n)
        ]
        assert completion.finish(db, held, rows, model_id=model_id) is not None
    return views.get(db, job.public_id)


def page(db: Database, job: JobView, keyring: Keyring | None = None, *, language: str = "en", **asked: object) -> str:
    return render(gather(db, keyring, job, price=None, **asked), language=language)


def test_the_counts_are_those_of_every_other_face(db: Database, keyring: Keyring) -> None:
    rng = random.Random(7)
    job = judged(db, keyring, [any_judgement(rng) for _ in range(200)])
    counted = figures.tally(db, job)
    assert counted.said == figures.summary(db, job)
    assert counted.texts == 200
    rows = [row.judgement for found in verdicts.in_order(db, job) for row in found.rows]
    assert counted.served_by == Counter(one.served_by for one in rows)
    assert counted.errors == Counter(one.error for one in rows if one.error)
    doubt: list[Counter[Severity]] = [Counter() for _ in range(figures.BINS)]
    for one in rows:
        if one.probabilities and one.severity in (Severity.SAFE, Severity.CONTROVERSIAL, Severity.UNSAFE):
            doubt[min(9, int(10 * (1 - one.probabilities[0])))][one.severity] += 1
    assert counted.doubt == doubt


def test_a_row_that_makes_no_verdict_counts_as_an_error(db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring, [SAFE] * 4)
    change(db, f"update verdict set severity = 9 where job_id = {job.id} and seq = 1")
    assert figures.tally(db, job).errors == Counter({"unreadable": 1})


def test_languages_come_from_metadata_and_are_left_out_where_nobody_names_one(db: Database, keyring: Keyring) -> None:
    plain = judged(db, keyring, MIXED, name="plain")
    assert figures.by_language(db, plain) == []
    assert "How languages differ" in page(db, plain)
    named = [{"lang": "zh"}, {"language": "en"}, {"lang": HOSTILE}, {"lang": "zh"}, {}, {"lang": ["x"]}]
    job = judged(db, keyring, MIXED, named)
    found = {one.language: dict(one.severities) for one in figures.by_language(db, job)}
    assert found["zh"] == {Severity.SAFE: 1, Severity.UNSAFE: 1}
    assert found[None] == {Severity.CONTROVERSIAL: 1}
    assert found[HOSTILE[:40]] == {Severity.SAFE: 1}
    many = judged(db, keyring, [SAFE] * 40, [{"lang": f"l{i}"} for i in range(40)], name="many")
    assert len(figures.by_language(db, many)) == figures.MOST_LANGUAGES
    assert "20 texts are in other languages" in page(db, many)


def test_the_policy_in_force_is_told_with_its_rules(db: Database, keyring: Keyring) -> None:
    document = {"name": "p", "default": "allow", "rules": [{"id": "no", "when": {"severity": "unsafe"}, "action": "block"}]}
    made, _ = policies.add(db, 1, Policy.model_validate(document))
    policies.activate(db, made)
    job = judged(db, keyring, MIXED)
    assert [tuple(one) for one in figures.by_rule(db, job)] == [
        ("p@1", None, "allow", 4), ("p@1", "no", "block", 1), ("p@1", None, "review", 1)
    ]  # fmt: skip
    shown = page(db, job)
    assert "What the policy says to do" in shown
    assert "<td>p@1</td><td>no</td><td>block</td>" in shown


def test_detectors_are_told(db: Database, keyring: Keyring) -> None:
    shown = page(db, finished(db, keyring, ENDS))
    assert "Detector finder" in shown
    for end in ("clear", "found", "too_short", "error"):
        assert f'<th scope="row">{end}</th>' in shown


def test_examples_are_drawn_from_each_severity_but_safe_and_without_their_texts(db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring, MIXED * 8)
    seqs = figures.drawn(db, job, of_each=3)
    found = [row.judgement.severity for row in verdicts.of_texts(db, job.id, job.day, seqs).rows]
    assert found == [Severity.UNSAFE] * 3 + [Severity.CONTROVERSIAL] * 3 + [Severity.ERROR] * 3
    shown = page(db, job, examples=3)
    assert shown.count("<article>") == 9
    assert "words" not in shown
    assert "<article>" not in page(db, job, examples=0)
    assert not list(audit.events(db, audit.Wanted(actions=["job.export"])))


def test_texts_are_an_export_veiled_and_only_as_long_as_they_are_kept(db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring, MIXED)
    shown = page(db, job, keyring, with_text=True)
    assert re.findall(r"<details>.*?</details>", shown, re.DOTALL)
    assert "words" not in re.sub(r"<details>.*?</details>", "", shown, flags=re.DOTALL)
    assert "words 3 of test" in shown
    (event,) = audit.events(db, audit.Wanted(actions=["job.export"]))
    assert event.subject == job.label
    assert event.detail == {"what": "report", "format": "html", "with_text": True}
    change(db, f"update job set purged_at = now() where id = {job.id}")
    gone = page(db, views.get(db, job.public_id), keyring, with_text=True)
    assert "words" not in gone
    assert "no longer kept" in gone


def test_nothing_in_it_runs_or_asks_for_anything(db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring, MIXED, {"lang": HOSTILE, HOSTILE: HOSTILE}, name=HOSTILE)
    change(db, f"""update job set metadata = jsonb_build_object({_literal(HOSTILE)}, {_literal(HOSTILE)}) where id = {job.id}""")
    shown = page(db, views.get(db, job.public_id), keyring, with_text=True)
    assert "<script" not in shown
    assert "\u202e" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;⟨U+202E⟩{{ 7 * 7 }}" in shown
    assert not re.findall(r"\b(?:src|href|action|onload|style)=", shown)
    assert "url(" not in shown
    assert "default-src &#39;none&#39;" in shown or "default-src 'none'" in shown


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def test_it_says_what_it_is_worth(db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring, MIXED)
    for sentence in ("None of this job is labelled", "not calibrated", "1 texts without a verdict", "no price of a device hour"):
        assert sentence in page(db, job), sentence
    assert "This was judged by a model that was made for tests" not in page(db, job)
    change(db, "update model set is_demo = true")
    assert "DEMO MODEL" in page(db, views.get(db, job.public_id))
    chinese = page(db, job, language="zh")
    assert "这些数字不能说明什么" in chinese
    assert 'lang="zh"' in chinese


def test_a_job_without_a_verdict_has_a_report(db: Database, keyring: Keyring) -> None:
    with Intake(db, keyring, load_settings(), new_job()) as intake:
        intake.add_all([(1, PayloadRow("a", "b"))])
        job = intake.seal()
    assert "No text has been judged yet." in page(db, job)


def test_the_command_writes_the_file(db: Database, database_url: str, keyring: Keyring, tmp_path: pathlib.Path) -> None:
    job = judged(db, keyring, MIXED)
    settings = load_settings(
        database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path / "data", price_per_device_hour=3.0
    )
    out = tmp_path / "report.html"
    done = said(settings, "report", job.label, "-o", str(out), "--with-text", "--examples", "2", "--language", "zh")
    assert done.returncode == 0, done.stderr
    assert "the report is in" in done.stderr
    file = out.read_text()
    assert file.startswith("<!doctype html>")
    assert "words 3 of test" in file
    assert "按每设备小时 3" in file
    for wrong, why in ((("--language", "fr"), "use one of en, zh"), (("-o", str(tmp_path)), "is a folder")):
        refused = said(settings, "report", job.label, *wrong)
        assert refused.returncode == 2
        assert why in refused.stderr
    assert said(settings, "report", "job_00000000000000000000000000000000").returncode == 2
