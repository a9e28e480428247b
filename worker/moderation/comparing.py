"""Has another model judge texts that were judged, and counts where both agree. What was asked for never waits for it.

Texts come from shards that are finished or passed on, into a short queue, and are dropped where the other model has no time. Only
what this process's model said itself is compared. Jobs that keep nothing are left out. What is kept of a text is a count; of some
that were judged differently, their place.
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue

from guardfleet.domain.detection import Detection, Outcome
from guardfleet.domain.verdict import Judgement, ServedBy, Severity, category_names
from guardfleet.errors import GuardfleetError
from guardfleet.policy.document import LANGUAGE_KEYS
from guardfleet.rows.payload import PayloadRow
from guardfleet.sampling.agreement import Compared
from guardfleet.store.deployments import comparisons
from guardfleet.store.deployments.comparisons import LABEL, SEVERITY, Batch, Cell, Place
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards.leases import Claim
from guardfleet.telemetry.logs import get_logger, told
from worker.moderation.judge import Judge, coverage_of
from worker.moderation.outcome import Loaded
from worker.moderation.seats import Beside, Seats

MOST_TEXTS = 256  # of one shard: more would keep the device from live texts for longer
MOST_WAITING = 8  # shards
POLL_S = 0.5  # for the end of the process
NAMED, NOT = "named", "not"
TAG = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,2}")
UNKNOWN = "unknown"

Finding = Judgement | Detection
Heard = Mapping[int, Finding]  # what this worker's judge said of texts of a shard, by their place in it
Witness = Callable[[Judge, Loaded, Heard, float], None]


def nobody(judge: Judge, shard: Loaded, heard: Heard, device_s: float) -> None:
    """Look at no shard."""


@dataclass(frozen=True, slots=True)
class _Work:
    """Texts of one shard that one model has judged, and the other one is to judge. `seconds` of the device for these."""

    deployment_id: int
    held: Claim
    other: Judge
    is_of_candidate: bool  # what is known; otherwise it is the live model's
    seqs: list[int]
    texts: list[PayloadRow]
    findings: list[Finding]
    seconds: float


class Comparer:
    """Compares from a thread of its own."""

    def __init__(self, db: Database, seats: Seats) -> None:
        self._db, self._seats = db, seats
        self._waiting: Queue[_Work] = Queue(MOST_WAITING)
        self._skipped: Counter[int] = Counter()  # texts, by deployment; those of a lost race are lost
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._live, name="compare", daemon=True)

    def start(self) -> None:
        """Start comparing."""
        self._thread.start()

    def stop(self) -> None:
        """Stop comparing; safe to call twice."""
        self._stopped.set()

    def witness(self, judge: Judge, shard: Loaded, heard: Heard, device_s: float) -> None:
        """Take note of a shard whose commit succeeded, and of what the judge said of its texts; returns at once."""
        held = shard.held
        beside, main = self._seats.beside, self._seats.main
        if beside is None or main is None or beside.seat.deployment_id is None or held.keeps_nothing:
            return
        known, other = (beside.seat, main) if beside.judges else (main, beside.seat)
        if judge is not known.judge:
            return
        asked = [i for i, said in heard.items() if said.served_by is ServedBy.MODEL]
        picked = _picked(beside, shard.digests, asked)
        if picked:
            work = _Work(
                beside.seat.deployment_id, held, other.judge, beside.judges, [held.first_seq + i for i in picked],
                [shard.texts[i] for i in picked], [heard[i] for i in picked], device_s * len(picked) / len(asked),
            )  # fmt: skip
            try:
                self._waiting.put_nowait(work)
            except Full:
                self._skipped[work.deployment_id] += len(picked)

    def _live(self) -> None:
        while not self._stopped.is_set():
            with suppress(Empty):
                self._do(self._waiting.get(timeout=POLL_S))

    def _do(self, work: _Work) -> None:
        try:
            contents = [text.content for text in work.texts]
            judged = work.other.engine.submit(contents, coverage=coverage_of(work.held)).result()
            others = [work.other.read(answer) for answer in judged.answers]
            live, candidate = (others, work.findings) if work.is_of_candidate else (work.findings, others)
            live_s, candidate_s = work.seconds, judged.timings.share_s
            if work.is_of_candidate:
                live_s, candidate_s = candidate_s, live_s
            batch = compared(work.held.job_id, work.seqs, work.texts, live, candidate)
            skipped = self._skipped.pop(work.deployment_id, 0)
            comparisons.add(
                self._db,
                work.deployment_id,
                Batch(batch.cells, batch.places, batch.compared, live_s=live_s, candidate_s=candidate_s, skipped=skipped),
            )
        except GuardfleetError as error:  # the other model is on its way out, or PostgreSQL is away: these texts are not compared
            get_logger().debug("comparison_dropped", reason=str(error))
        except Exception as error:  # noqa: BLE001 - a comparison must not end the thread that makes all of them
            get_logger().warning("comparison_failed", **told(error))


def _picked(beside: Beside, digests: Sequence[bytes], asked: Sequence[int]) -> list[int]:
    """Return which texts to compare: some of a canary's shard, evenly spread; a shadow's share, the same of a text each time."""
    if not beside.judges:
        asked = [i for i in asked if _is_shadowed(digests[i], beside.share)]
    return list(asked[:: -(-len(asked) // MOST_TEXTS)]) if asked else []


def _is_shadowed(digest: bytes, share: float) -> bool:
    """Return whether the text is of a shadow's share. Other bytes of the digest than a cascade's sample takes."""
    return int.from_bytes(digest[4:8]) < share * (1 << 32)


def compared(
    job_id: int, seqs: Sequence[int], texts: Sequence[PayloadRow], live: Sequence[Finding], candidate: Sequence[Finding]
) -> Batch:
    """Count what two models of one detector said of the same texts, by language."""
    cells: Counter[Cell] = Counter()
    places = []
    agreed = 0
    for seq, text, one, other in zip(seqs, texts, live, candidate, strict=True):
        language = language_of(text)
        words = _word(one), _word(other)
        if isinstance(one, Judgement) and isinstance(other, Judgement):
            cells[Cell(language, SEVERITY, *words)] += 1
            cells.update(_categories(language, one, other))
        else:
            cells[Cell(language, LABEL, *words)] += 1
        agreed += words[0] == words[1]
        if words[0] != words[1]:
            places.append(Place(job_id, seq, *words))
    errors = [sum(map(_is_error, said)) for said in (live, candidate)]
    return Batch(cells, places, Compared(len(seqs), agreed, *errors))


def _word(said: Finding) -> str:
    return said.severity.label if isinstance(said, Judgement) else said.word


def _is_error(said: Finding) -> bool:
    return said.severity is Severity.ERROR if isinstance(said, Judgement) else said.outcome is Outcome.ERROR


def language_of(text: PayloadRow) -> str:
    """Return the language that the text's metadata names; UNKNOWN for anything that is not the tag of one."""
    metadata = text.metadata or {}
    said = next((metadata[key] for key in LANGUAGE_KEYS if metadata.get(key) is not None), None)
    return said if isinstance(said, str) and TAG.fullmatch(said) else UNKNOWN


def _categories(language: str, one: Judgement, other: Judgement) -> list[Cell]:
    mine, theirs = set(category_names(one.categories)), set(category_names(other.categories))
    return [
        Cell(language, name, NAMED if name in mine else NOT, NAMED if name in theirs else NOT) for name in sorted(mine | theirs)
    ]
