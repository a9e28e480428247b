"""Review queues on real PostgreSQL: no text is with two people, none is lost, and what is sent twice counts once."""

import dataclasses
import random
import threading
from collections import Counter
from typing import Any

import pytest

from guardfleet.domain.labels import Source
from guardfleet.domain.reviews import Kind, QueueOptions
from guardfleet.domain.verdict import Severity
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.jobs import reviewing
from guardfleet.jobs.redecide import redecide
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit
from guardfleet.store.audit import Wanted
from guardfleet.store.jobs import control, retention
from guardfleet.store.jobs.views import JobView
from guardfleet.store.labels import labels, progress, queues, tasks
from guardfleet.store.labels.queues import Queue
from guardfleet.store.labels.tasks import Held, Outcome, Task
from guardfleet.store.policy.decisions import Scope
from guardfleet.store.postgres.database import Database
from tests.services.judged import UNSAFE
from tests.services.poison import change
from tests.services.stored import LONG_AGO, finished_on, scalar
from tests.store.test_erasure import BY_ID, erase, other_tenant
from tests.store.test_erasure import judged as with_person
from tests.store.test_labels import drawn, given
from tests.store.test_policies import TENANT, activated, finished

REVIEW = "name: look\ndefault: review\n"
NEVER = random.Random(0)
OPTIONS = QueueOptions("q", second_share=0.0)


def reviewed(db: Database, keyring: Keyring, n: int) -> JobView:
    """A job whose texts the policy in force sends to review."""
    activated(db, REVIEW)
    return finished(db, keyring, [UNSAFE] * n)


def queue_of(db: Database, job: JobView | None = None, **options: Any) -> Queue:
    made = QueueOptions(**{"name": "q", "second_share": 0.0, **options})
    return reviewing.create(db, TENANT, made, job=job and job.label, sample=None)


def take(db: Database, queue: Queue, who: str) -> Task | None:
    return reviewing.take(db, queue, who, rng=NEVER)


def took(db: Database, queue: Queue, who: str) -> Task:
    found = take(db, queue, who)
    assert found is not None
    return found


def say(db: Database, queue: Queue, who: str, task: Task, label: str = "unsafe", *categories: str) -> Outcome:
    return reviewing.decide(db, queue, reviewing.answer(who, task.id, task.token, label=label, categories=categories))


def skip(db: Database, keyring: Keyring, queue: Queue, who: str, task: Task) -> Outcome:
    return reviewing.skip(db, keyring, queue, Held(task.id, task.token, who))


def expire(db: Database) -> None:
    """Let every lease run out."""
    change(db, "update review_task set lease_until = now() - interval '1 second' where lease_until is not null")


def labelled(db: Database, job: JobView) -> list[tuple[int, str, str]]:
    return [(one.seq, one.author, Severity(one.severity).label) for one in labels.page(db, TENANT, job_id=job.id, limit=1000)]


def test_a_text_is_asked_about_once_and_its_answer_is_a_label(db: Database, keyring: Keyring) -> None:
    job = reviewed(db, keyring, 3)
    queue = queue_of(db)
    first, other = took(db, queue, "ann"), took(db, queue, "bob")
    assert (first.seq, other.seq) == (0, 1)
    assert took(db, queue, "ann") == first  # held until it is answered
    assert say(db, queue, "ann", first, "unsafe", "Violent") is Outcome.DONE
    assert say(db, queue, "ann", first, "unsafe", "Violent") is Outcome.KNOWN  # sent twice: the first counts
    assert say(db, queue, "ann", first, "safe") is Outcome.TAKEN
    assert say(db, queue, "bob", first, "safe") is Outcome.TAKEN
    assert labelled(db, job) == [(0, "ann", "unsafe")]
    assert say(db, queue, "bob", other, "safe") is Outcome.DONE
    assert say(db, queue, "bob", took(db, queue, "bob"), "controversial") is Outcome.DONE
    assert take(db, queue, "ann") is None
    assert progress.progress(db, queue) == progress.Progress(3, 3, 0, 0, 0, 0, 0)
    (stored, *_) = labels.page(db, TENANT, limit=9)
    assert (stored.source, stored.categories, stored.sample_id) == (Source.REVIEWER, 1, None)


def test_a_text_of_somebody_who_went_away_is_given_to_another(db: Database, keyring: Keyring) -> None:
    job = reviewed(db, keyring, 1)
    queue = queue_of(db)
    mine = took(db, queue, "ann")
    assert take(db, queue, "bob") is None
    expire(db)
    theirs = took(db, queue, "bob")
    assert (theirs.id, theirs.token) == (mine.id, mine.token + 1)
    assert say(db, queue, "ann", mine) is Outcome.TAKEN
    assert say(db, queue, "bob", theirs) is Outcome.DONE
    assert labelled(db, job) == [(0, "bob", "unsafe")]


def test_a_lease_that_ran_out_with_nobody_waiting_costs_nothing(db: Database, keyring: Keyring) -> None:
    reviewed(db, keyring, 1)
    queue = queue_of(db)
    mine = took(db, queue, "ann")
    expire(db)
    assert say(db, queue, "ann", mine) is Outcome.DONE


def test_a_skipped_text_goes_to_others_and_not_to_the_same_person_again(db: Database, keyring: Keyring) -> None:
    reviewed(db, keyring, 2)
    queue = queue_of(db)
    first = took(db, queue, "ann")
    assert skip(db, keyring, queue, "ann", first) is Outcome.DONE
    assert skip(db, keyring, queue, "ann", first) is Outcome.KNOWN
    second = took(db, queue, "ann")
    assert second.seq == 1
    assert say(db, queue, "ann", second) is Outcome.DONE
    assert take(db, queue, "ann") is None
    assert took(db, queue, "bob").id == first.id


def test_an_undo_takes_the_label_back_and_asks_again(db: Database, keyring: Keyring) -> None:
    job = reviewed(db, keyring, 2)
    queue = queue_of(db)
    for label in ("safe", "unsafe"):
        assert say(db, queue, "ann", took(db, queue, "ann"), label) is Outcome.DONE
    newest = tasks.last(db, queue, "ann")
    assert tasks.undo(db, queue, "bob", newest.id) is Outcome.TAKEN
    assert tasks.undo(db, queue, "ann", newest.id) is Outcome.DONE
    assert tasks.undo(db, queue, "ann", newest.id) is Outcome.KNOWN
    assert labelled(db, job) == [(0, "ann", "safe")]
    again = took(db, queue, "ann")
    assert (again.seq, again.token) == (1, 2)
    assert say(db, queue, "ann", again, "controversial") is Outcome.DONE
    assert labelled(db, job) == [(0, "ann", "safe"), (1, "ann", "controversial")]
    for seq in (1, 0):
        found = tasks.last(db, queue, "ann")
        assert found.seq == seq
        assert tasks.undo(db, queue, "ann", found.id) is Outcome.DONE
    assert labelled(db, job) == []
    assert [event.action for event in audit.events(db, Wanted(actions=["label.retract"]))] == ["label.retract"] * 3


def test_a_label_from_elsewhere_stays_when_a_decision_that_says_the_same_is_taken_back(db: Database, keyring: Keyring) -> None:
    job = reviewed(db, keyring, 1)
    queue = queue_of(db)
    task = took(db, queue, "ann")
    given(db, job, {"seq": 0, "label": "unsafe"})  # by ann, from a file
    assert say(db, queue, "ann", task) is Outcome.DONE
    assert tasks.undo(db, queue, "ann", task.id) is Outcome.DONE
    assert labelled(db, job) == [(0, "ann", "unsafe")]


def test_a_second_answer_is_of_another_person_who_is_not_told(db: Database, keyring: Keyring) -> None:
    job = reviewed(db, keyring, 1)
    queue = queue_of(db, second_share=1.0)
    first = took(db, queue, "ann")
    assert first.is_measured
    assert say(db, queue, "ann", first) is Outcome.DONE
    assert take(db, queue, "ann") is None
    second = took(db, queue, "bob")
    assert (second.seq, second.kind, second.is_measured) == (0, Kind.SECOND, True)
    assert say(db, queue, "bob", second, "safe") is Outcome.DONE
    assert take(db, queue, "eve") is None
    assert progress.pairs(db, queue) == [(Severity.UNSAFE, Severity.SAFE, 1)]
    assert len(labelled(db, job)) == 2


def test_a_case_is_resolved_once_by_a_third_person(db: Database, keyring: Keyring) -> None:
    job = reviewed(db, keyring, 2)
    queue = queue_of(db, second_share=1.0)
    for who, label in (("ann", "unsafe"), ("ann", "safe"), ("bob", "controversial"), ("bob", "safe")):
        assert say(db, queue, who, took(db, queue, who), label) is Outcome.DONE
    (case,) = progress.cases(db, queue, limit=9)
    assert (case.seq, case.first, case.second, case.resolved) == (0, Severity.UNSAFE, Severity.CONTROVERSIAL, None)
    assert progress.resolve(db, queue, case, reviewing.answer("bob", 0, 0, label="unsafe")) is Outcome.TAKEN
    assert progress.resolve(db, queue, case, reviewing.answer("eve", 0, 0, label="controversial")) is Outcome.DONE
    assert progress.resolve(db, queue, case, reviewing.answer("eve", 0, 0, label="unsafe")) is Outcome.KNOWN
    assert (reviewing.case(db, queue, case.id).resolved, reviewing.case(db, queue, case.id).resolved_by) == (1, "eve")
    appeal = labels.page(db, TENANT, job_id=job.id, limit=9)[-1]
    assert (appeal.seq, appeal.source, appeal.severity) == (0, Source.APPEAL, Severity.CONTROVERSIAL)
    assert tasks.undo(db, queue, "ann", case.id) is Outcome.TAKEN
    with pytest.raises(NotFoundError):
        reviewing.case(db, queue, case.id + 100)


def test_a_golden_text_measures_and_is_no_label(db: Database, keyring: Keyring) -> None:
    known = finished(db, keyring, [UNSAFE] * 2)
    given(db, known, {"seq": 0, "label": "unsafe", "source": "golden", "author": "lead"})
    job = reviewed(db, keyring, 2)
    queue = queue_of(db, job, golden_share=1.0)
    n = scalar(db, "select count(*) from label")
    golden = took(db, queue, "ann")
    assert (golden.kind, golden.job_id, golden.is_measured) == (Kind.GOLDEN, known.id, True)
    assert say(db, queue, "ann", golden, "safe") is Outcome.DONE
    assert scalar(db, "select count(*) from label") == n
    assert took(db, queue, "ann").kind == Kind.FIRST  # each golden text once
    assert say(db, queue, "bob", took(db, queue, "bob"), "unsafe") is Outcome.DONE
    found = {one.who: (one.golden, one.golden_right) for one in progress.reviewers(db, queue)}
    assert found == {"ann": (1, 0), "bob": (1, 1)}
    assert take(db, queue, "lead").kind == Kind.FIRST  # who gave the label is not asked for it


def test_a_sample_is_gone_through_in_its_order_and_its_labels_know_it(db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, [UNSAFE] * 70)
    sample = drawn(db, job, 60, "random")
    queue = reviewing.create(db, TENANT, OPTIONS, job=None, sample=sample.label)
    with pytest.raises(RejectedError, match="this name"):
        reviewing.create(db, TENANT, OPTIONS, job=None, sample=None)
    given(db, job, {"seq": 5, "label": "safe"})
    n = 0
    while (task := take(db, queue, "bob")) is not None:
        assert say(db, queue, "bob", task) is Outcome.DONE
        n += 1
    there = [one for one in labels.page(db, TENANT, job_id=job.id, limit=100) if one.author == "bob"]
    assert len(there) == n == sample.n - scalar(db, f"select count(*) from sample_text where seq = 5 and sample_id = {sample.id}")
    assert {(one.sample_id, one.probability) for one in there} == {(sample.label, 60 / 70)}
    in_order = [one.seq for one in there]
    assert in_order == scalar(db, f"select array_agg(seq order by ord) from sample_text where sample_id = {sample.id} and seq <> 5")


def test_a_text_is_in_one_queue_and_a_closed_queue_gives_it_to_the_next(db: Database, keyring: Keyring) -> None:
    reviewed(db, keyring, 3)
    one, other = queue_of(db), queue_of(db, name="other")
    mine = took(db, one, "ann")
    assert take(db, other, "bob") is None
    queues.change(db, one, QueueOptions("closed", is_open=False))
    assert [took(db, other, "bob").seq] == [1]
    assert say(db, one, "ann", mine) is Outcome.DONE  # what somebody holds can still be answered
    assert take(db, one, "ann") is None
    events = [event.detail for event in audit.events(db, Wanted(actions=["review_queue.update"]))]
    assert events == [{"fields": ["name", "second_share", "is_open"]}]


def test_a_queue_follows_the_policy_in_force(db: Database, keyring: Keyring) -> None:
    finished(db, keyring, [UNSAFE] * 2)
    queue = queue_of(db)
    assert take(db, queue, "ann") is None
    redecide(db, activated(db, REVIEW), Scope(TENANT))
    assert took(db, queue, "ann").seq == 0


def test_only_those_who_are_named_review_in_a_queue_and_no_other_tenant(db: Database, keyring: Keyring) -> None:
    reviewed(db, keyring, 1)
    queue = queue_of(db, reviewers=("ann",))
    assert [one.label for one in queues.of_tenant(db, TENANT, who="ann")] == [queue.label]
    assert queues.of_tenant(db, TENANT, who="bob") == []
    with pytest.raises(NotFoundError):
        reviewing.queue_for(db, TENANT, queue.public_id, who="bob")
    other = other_tenant(db, keyring)
    assert queues.of_tenant(db, other) == []
    with pytest.raises(NotFoundError):
        reviewing.queue_for(db, other, queue.public_id, who="ann")
    task = took(db, queue, "ann")
    elsewhere = dataclasses.replace(queue, id=queue.id + 1, tenant_id=other)
    assert tasks.decide(db, elsewhere, reviewing.answer("ann", task.id, task.token, label="safe")) is Outcome.GONE
    with pytest.raises(NotFoundError):
        reviewing.create(db, other, QueueOptions("x"), job=finished(db, keyring, [UNSAFE]).label, sample=None)


def test_a_text_that_was_purged_is_told_and_skipped_by_all_at_once(db: Database, keyring: Keyring) -> None:
    job = reviewed(db, keyring, 2)
    queue = queue_of(db)
    task = took(db, queue, "ann")
    assert reviewing.show(db, keyring, task.job_id, task.seq).content == "x"
    assert retention.purge(db, [job.id]) == 1
    shown = reviewing.show(db, keyring, task.job_id, task.seq)
    assert shown.content is None
    assert shown.verdict["severity"] == "unsafe"
    assert skip(db, keyring, queue, "ann", task) is Outcome.DONE
    assert took(db, queue, "bob").seq == 1
    assert progress.progress(db, queue).gone == 1


def test_an_erased_text_takes_its_tasks_along(db: Database, keyring: Keyring) -> None:
    activated(db, REVIEW)
    job = with_person(db, keyring)
    queue = queue_of(db)
    assert took(db, queue, "ann").seq == 0
    mine = took(db, queue, "bob")
    assert mine.seq == 1
    erase(db, keyring, BY_ID, job)
    assert reviewing.show(db, keyring, job.id, 1).content is None
    assert say(db, queue, "bob", mine) is Outcome.GONE
    assert took(db, queue, "bob").seq == 2
    assert labelled(db, job) == []


def test_a_job_takes_its_queues_and_tasks_along(db: Database, keyring: Keyring) -> None:
    activated(db, REVIEW)
    old = finished_on(db, keyring, LONG_AGO)
    queue = queue_of(db, old)
    assert took(db, queue, "ann").seq == 0
    assert retention.purge(db, [old.id]) == 1
    assert retention.expire(db, "verdict", LONG_AGO)
    assert (scalar(db, "select count(*) from review_task"), scalar(db, "select count(*) from review_queue")) == (0, 0)
    assert reviewing.show(db, keyring, old.id, 0) == reviewing.Shown(None, None, None)


def test_many_people_at_once_get_each_text_once(db: Database, keyring: Keyring) -> None:
    """Eight people in threads; some skip, some send twice, some vanish with a text in hand."""
    n = 160
    job = reviewed(db, keyring, n)
    queue = queue_of(db, second_share=0.3, lease_s=5)
    failed: list[BaseException] = []

    def work(who: str, rng: random.Random) -> None:
        try:
            while (task := reviewing.take(db, queue, who, rng=rng)) is not None:
                chance = rng.random()
                if chance < 0.1:
                    assert skip(db, keyring, queue, who, task) in (Outcome.DONE, Outcome.TAKEN)
                elif chance < 0.15:
                    change(db, f"update review_task set lease_until = now() where id = {task.id} and claimed_by = '{who}'")
                    return  # gone, and its lease is over
                else:
                    label = rng.choice(["safe", "unsafe"])
                    sent = [say(db, queue, who, task, label) for _ in range(rng.choice([1, 1, 2]))]
                    assert sent in ([Outcome.DONE], [Outcome.DONE, Outcome.KNOWN])
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    for turn in range(6):
        people = [threading.Thread(target=work, args=(f"p{turn}-{i}", random.Random(f"{turn} {i}"))) for i in range(8)]
        for one in people:
            one.start()
        for one in people:
            one.join()
        assert not failed, failed
    counts = Counter((seq, author) for seq, author, _ in labelled(db, job))
    assert set(counts.values()) == {1}
    of_text = Counter(seq for seq, _ in counts)
    seconds = scalar(db, f"select count(*) from review_task where kind = {Kind.SECOND} and decided_at is not null")
    assert set(of_text) == set(range(n))
    assert 0 < seconds == sum(of_text.values()) - n
    assert progress.progress(db, queue).decided == n


def test_a_cancelled_job_is_reviewed_as_far_as_it_was_judged(db: Database, keyring: Keyring) -> None:
    job = reviewed(db, keyring, 2)
    control.cancel(db, job.id)
    assert took(db, queue_of(db), "ann").seq == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": "a\nb"}, {"name": "x" * 101}, {"second_share": 1.5}, {"golden_share": -0.1}, {"lease_s": 1},
        {"break_after": -1}, {"reviewers": ("",)}, {"reviewers": ("a\0b",)},
    ],
)  # fmt: skip
def test_a_queue_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RejectedError):
        QueueOptions(**{"name": "q", **wrong})


def test_an_author_fits_a_label_and_two_people_stay_two() -> None:
    assert reviewing.author_of("key_1") == "key_1"
    long = "https://issuer.test/" + "u" * 150
    one, other = reviewing.author_of(long + "1"), reviewing.author_of(long + "2")
    assert one != other
    assert len(one) <= 100
    with pytest.raises(RejectedError, match="no categories"):
        reviewing.answer("ann", 1, 1, label="safe", categories=["Violent"])


def test_a_form_of_another_queue_changes_nothing(db: Database, keyring: Keyring) -> None:
    reviewed(db, keyring, 2)
    queue, another = queue_of(db), queue_of(db, name="another")
    task = took(db, queue, "ann")
    assert say(db, another, "ann", task, "unsafe") is Outcome.GONE
    assert say(db, queue, "ann", task, "unsafe") is Outcome.DONE
    assert tasks.undo(db, another, "ann", task.id) is Outcome.TAKEN
    assert say(db, queue, "ann", task, "unsafe") is Outcome.KNOWN
    assert say(db, queue, "ann", task, "safe") is Outcome.TAKEN
    assert skip(db, keyring, queue, "ann", task) is Outcome.TAKEN
