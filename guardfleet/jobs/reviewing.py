"""Reviewing by people: what a queue is made of, what somebody is shown of a text, and what they say of it."""

import random
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from guardfleet.domain import ids
from guardfleet.domain.labels import MOST_AUTHOR
from guardfleet.domain.reviews import QueueOptions
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.jobs import labelling
from guardfleet.jobs.labelling import Defaults, Refused
from guardfleet.jobs.sampling import said
from guardfleet.security.encryption import Keyring
from guardfleet.store import verdicts
from guardfleet.store.jobs import texts, views
from guardfleet.store.jobs.retries import Places
from guardfleet.store.labels import filling, people, progress, queues, reviews, samples, tasks
from guardfleet.store.labels.progress import Case
from guardfleet.store.labels.queues import Queue
from guardfleet.store.labels.reviews import Place
from guardfleet.store.labels.tasks import Answer, Held, Outcome, Task
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts.page import Content

AT_ONCE = 50  # texts that a queue without tasks takes in
PAGE = 500
DIGEST_CHARS = 12
MOST_NAMED = 5  # of wrong ids, in a message


@dataclass(frozen=True, slots=True)
class Shown:
    """A text as a person sees it; `content` None: it was deleted."""

    content: Content | None
    verdict: dict[str, Any] | None  # as `sampling.said` tells it; None: it is gone too
    evidence: dict[str, Any] | None


def create(db: Database, tenant_id: int, options: QueueOptions, *, job: str | None, sample: str | None) -> Queue:
    """Make a queue of a sample, or of what the policy reviews of a job or of all. Raises NotFoundError, RejectedError."""
    _require_keys(db, tenant_id, options.reviewers or ())
    if job is not None and sample is not None:
        raise RejectedError("a queue has the texts of a job or of a sample: name one of them.", param="sample")
    if sample is not None:
        with _about("sample"):
            drawn = samples.get(db, ids.SAMPLE.parse(sample), tenant_id=tenant_id)
        return queues.create(db, tenant_id, options, job_id=drawn.job_id, sample_id=drawn.id)
    with _about("job"):
        job_id = None if job is None else views.get(db, ids.JOB.parse(job), tenant_id=tenant_id).id
    return queues.create(db, tenant_id, options, job_id=job_id)


@contextmanager
def _about(param: str) -> Iterator[None]:
    """Say of what is not found which parameter named it."""
    try:
        yield
    except NotFoundError as error:
        raise NotFoundError(str(error), param=param) from None


def change(db: Database, queue: Queue, options: QueueOptions) -> None:
    """Change a queue. Who was named already may stay, whatever became of them. Raises RejectedError."""
    known = queue.options.reviewers or ()
    _require_keys(db, queue.tenant_id, [who for who in options.reviewers or () if who not in known])
    queues.change(db, queue, options)


def _require_keys(db: Database, tenant_id: int, whos: Collection[str]) -> None:
    """Refuse keys that cannot review: nobody could. People who sign in by name need not have done so yet."""
    named = people.named(db, tenant_id, [who for who in whos if people.is_key(who)]).values()
    if wrong := [one.who for one in named if one.never]:
        raise RejectedError(f"{', '.join(wrong[:MOST_NAMED])}: no key of yours that may review.", param="reviewers")


def queue_for(db: Database, tenant_id: int, public_id: uuid.UUID, *, who: str) -> Queue:
    """Return a queue in which this person reviews. Raises NotFoundError for any other: it does not exist for them."""
    queue = queues.get(db, public_id, tenant_id=tenant_id)
    if not queue.options.admits(who):
        raise NotFoundError(ids.QUEUE.unknown)
    return queue


def take(db: Database, queue: Queue, who: str, *, rng: random.Random) -> Task | None:
    """Return what the person holds, else a new task, else None: nothing waits for them."""
    golden = rng.random() < queue.options.golden_share
    found = tasks.claim(db, queue, who, golden=golden)
    if found is None and queue.options.is_open and _fill(db, queue):
        found = tasks.claim(db, queue, who)
    return found


def _fill(db: Database, queue: Queue) -> int:
    """Take more texts into the queue, in their order; return how many."""
    if queue.sample_id is not None:
        return filling.fill_from_sample(db, queue, most=AT_ONCE)
    after: Place | None = None
    while page := list(reviews.waiting(db, queue.tenant_id, job_id=queue.job_id, after=after, limit=PAGE, kept=True)):
        if added := filling.fill(db, queue, [(job.id, seq) for job, seqs in page for seq in seqs], most=AT_ONCE):
            return added
        after = Place(page[-1][0].id, page[-1][1][-1])
    return 0


def show(db: Database, keyring: Keyring, job_id: int, seq: int) -> Shown:
    """Return a text with its verdict, each as far as it is kept."""
    job = views.get_all(db, [job_id]).get(job_id)
    if job is None:
        return Shown(None, None, None)
    page = verdicts.of_texts(db, job.id, job.day, [seq])
    row, decision = next(zip(page.fields(), page.decided(), strict=True), (None, None))
    place = None if job.purged_at is not None else Places(db, job).of(seq)
    opened = [] if place is None else texts.of_shard(db, keyring, job, place[0])
    at = -1 if place is None else seq - place[1]
    kept = opened[at] if 0 <= at < len(opened) and not opened[at].is_erased else None
    return Shown(None if kept is None else kept.content, row and said(row, decision), row and row["evidence"])


def author_of(who: str) -> str:
    """Return the author of a person's labels: their id, shortened by a digest where a label has no room for it."""
    if len(who) <= MOST_AUTHOR and who.isprintable():
        return who
    digest = sha256(who.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_CHARS]
    return "".join(char for char in who if char.isprintable())[: MOST_AUTHOR - DIGEST_CHARS - 1] + "~" + digest


def answer(who: str, task_id: int, token: int, *, label: str, categories: Sequence[str] = ()) -> Answer:
    """Return what a person says, held to the rules of every label. Raises RejectedError."""
    author = author_of(who)
    given = {"label": label, "categories": list(categories), "seq": 0, "job": uuid.UUID(int=0).hex}
    read = labelling.read(given, Defaults(source="reviewer", author=author))
    if isinstance(read, Refused):
        raise RejectedError(f"{read.detail}.", param=read.code)
    return Answer(task_id, token, who, author=author, severity=read.severity, categories=read.categories)


def decide(db: Database, queue: Queue, given: Answer) -> Outcome:
    """Store what a person says of the text that they hold."""
    return tasks.decide(db, queue, given)


def skip(db: Database, keyring: Keyring, queue: Queue, given: Held) -> Outcome:
    """Give a text back to others; one that was deleted, to nobody."""
    mine = tasks.of_person(db, queue, given.who)
    is_gone = mine is not None and mine.id == given.task_id and show(db, keyring, mine.job_id, mine.seq).content is None
    return tasks.skip(db, queue, given, is_gone=is_gone)


def case(db: Database, queue: Queue, task_id: int) -> Case:
    """Return a text on which two people differ. Raises NotFoundError."""
    found = progress.cases(db, queue, limit=1, task_id=task_id)
    if not found:
        raise NotFoundError("there is no such case in this queue.")
    return found[0]
