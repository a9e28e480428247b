"""Has another model judge texts that were judged, and counts where both agree. Verdicts never wait for it.

Texts come from shards that are finished, into a short queue, and are dropped where the other model has no time. Jobs that keep
nothing are left out. What is kept of a text is a count; of some that were judged differently, their place.
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue

from guardfleet.domain.verdict import Judgement, ServedBy, Severity, category_names
from guardfleet.errors import GuardfleetError
from guardfleet.policy.document import LANGUAGE_KEYS
from guardfleet.rows.payload import PayloadRow
from guardfleet.sampling.agreement import Compared
from guardfleet.store.deployments import comparisons
from guardfleet.store.deployments.comparisons import SEVERITY, Batch, Cell, Place
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards.completion import Row
from guardfleet.store.shards.leases import Claim
from guardfleet.telemetry.logs import get_logger, told
from worker.moderation.interpretation import judgement_of
from worker.moderation.judge import Judge
from worker.moderation.seats import Beside, Seats

MOST_TEXTS = 256  # of one shard: more would keep the device from live texts for longer
MOST_WAITING = 8  # shards
POLL_S = 0.5  # for the end of the process
NAMED, NOT = "named", "not"
TAG = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,2}")
UNKNOWN = "unknown"

Witness = Callable[[Judge, Claim, Sequence[PayloadRow], Sequence[Row], float], None]


def nobody(judge: Judge, held: Claim, texts: Sequence[PayloadRow], rows: Sequence[Row], device_s: float) -> None:
    """Look at no finished shard."""


@dataclass(frozen=True, slots=True)
class _Work:
    """Texts of one shard that one model has judged, and the other one is to judge. `seconds` of the device for these."""

    deployment_id: int
    job_id: int
    other: Judge
    is_of_candidate: bool  # what is known; otherwise it is the live model's
    seqs: list[int]
    texts: list[PayloadRow]
    judgements: list[Judgement]
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

    def witness(self, judge: Judge, held: Claim, texts: Sequence[PayloadRow], rows: Sequence[Row], device_s: float) -> None:
        """Take note of a shard that was finished; returns at once."""
        beside, main = self._seats.beside, self._seats.main
        if beside is None or main is None or beside.seat.deployment_id is None or held.keeps_nothing:
            return
        known, other = (beside.seat, main) if beside.judges else (main, beside.seat)
        if judge is not known.judge:
            return
        asked = [i for i, row in enumerate(rows) if row.model_id is None and row.judgement.served_by is ServedBy.MODEL]
        picked = _picked(beside, rows, asked)
        if picked:
            work = _Work(
                beside.seat.deployment_id, held.job_id, other.judge, beside.judges, [held.first_seq + i for i in picked],
                [texts[i] for i in picked], [rows[i].judgement for i in picked], device_s * len(picked) / len(asked),
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
            judged = work.other.engine.submit([text.content for text in work.texts]).result()
            others = [judgement_of(answer) for answer in judged.answers]
            live, candidate = (others, work.judgements) if work.is_of_candidate else (work.judgements, others)
            live_s, candidate_s = work.seconds, judged.timings.share_s
            if work.is_of_candidate:
                live_s, candidate_s = candidate_s, live_s
            batch = compared(work.job_id, work.seqs, work.texts, live, candidate)
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


def _picked(beside: Beside, rows: Sequence[Row], asked: Sequence[int]) -> list[int]:
    """Return the rows to compare: of a canary's shard some, evenly spread; for a shadow its share, the same of a text each time."""
    if not beside.judges:
        asked = [i for i in asked if _is_shadowed(rows[i].digest, beside.share)]
    return list(asked[:: -(-len(asked) // MOST_TEXTS)]) if asked else []


def _is_shadowed(digest: bytes | None, share: float) -> bool:
    """Return whether the text is of a shadow's share. Other bytes of the digest than a cascade's sample takes."""
    return digest is not None and int.from_bytes(digest[4:8]) < share * (1 << 32)


def compared(
    job_id: int, seqs: Sequence[int], texts: Sequence[PayloadRow], live: Sequence[Judgement], candidate: Sequence[Judgement]
) -> Batch:
    """Count what two models said of the same texts, by language."""
    cells: Counter[Cell] = Counter()
    places = []
    agreed = 0
    for seq, text, one, other in zip(seqs, texts, live, candidate, strict=True):
        language = language_of(text)
        words = one.severity.label, other.severity.label
        cells[Cell(language, SEVERITY, *words)] += 1
        cells.update(_categories(language, one, other))
        agreed += one.severity is other.severity
        if one.severity is not other.severity:
            places.append(Place(job_id, seq, *words))
    errors = [sum(one.severity is Severity.ERROR for one in said) for said in (live, candidate)]
    return Batch(cells, places, Compared(len(seqs), agreed, *errors))


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
