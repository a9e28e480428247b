"""What the engine promises, and what the thing inside it must offer.

`Engine` is what task threads see. `Backend` is what the engine thread drives; replacing it changes speed, never meaning.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from guardfleet.domain.verdict import Model
from worker.engine.prompting.prompt import Content
from worker.engine.prompting.windows import Coverage


class DeviceFullError(Exception):
    """The batch did not fit in the device's memory; a smaller one may."""


class SelfTestError(Exception):
    """The packed pass does not agree with transformers' own, or with itself, on this model and device."""


class DeviceLostError(Exception):
    """The device cannot be used by this process any more; only a new process can."""


class Prepared(Protocol):
    """A row ready for the device."""

    @property
    def n_tokens(self) -> int:
        """Length of the prompt in tokens."""


@dataclass(frozen=True, slots=True)
class Unjudgeable:
    """A row that never reaches the device: a code of `verdict.ERROR_CODES`, and a detail that holds no text."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Pieces:
    """A content that takes several rows: the characters each of them shows, and what was left out (`rendering`).

    Without `spans`: one row that shows all of it, with notes.
    """

    rows: "list[Prepared]"
    spans: list[tuple[int, int]]
    notes: Mapping[str, Any]


@dataclass(slots=True)  # frozen, making one would cost four times as much; nobody changes one
class Answer:
    """What the model said of one text.

    `probabilities`: P(safe), P(controversial), P(unsafe) from the label's position, summing to 1; None if it was not reached.
    `categories`: P of each of `verdict.CATEGORY_CHOICES` to be named first, had the answer been unsafe in one of them, whatever it
    was: they sum to 1, that of `None` is 0; an entry is None where the tokenizer gives no odds. `passes`: forward passes it took.
    `is_close`: some token won by so little that another batch could turn it in this precision. `responds`: the mode that was asked,
    whose grammar the answer has to be in. `flaw`: why it is no answer however well it reads, as one that did not end. `failure` is
    set instead of `raw` when there is no answer. A content in pieces has `windows`, the answer to each with its characters, instead
    of all of these. `notes`: what was left out, and what else there is to say of the text.
    """

    raw: str
    probabilities: tuple[float, float, float] | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    failure: Unjudgeable | None = None
    categories: tuple[float | None, ...] | None = None
    passes: int = 1
    is_close: bool = False
    responds: bool = False
    flaw: str | None = None
    windows: "tuple[tuple[int, int, Answer], ...]" = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Timings:
    """Where a request's time went, in seconds. `device_s` is the sum over the batches that its rows rode in."""

    tokenise_s: float = 0.0
    wait_s: float = 0.0
    device_s: float = 0.0
    batches: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcome of one request: an answer per text, in order."""

    answers: list[Answer]
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One batch in figures: `settled` of its rows have their answer now, `close` of these by a hair's breadth."""

    rows: int
    tokens: int
    seconds: float
    settled: int
    close: int


Collect = Callable[[], Sequence[Answer | Prepared]]  # waits for a batch: for every row its answer, or the row that goes on with it
NOW: "Future[Any]" = Future()
NOW.set_result(None)


class Launched(NamedTuple):
    """A batch that the device has been given. It can be collected at any time, without waiting once `done` is."""

    collect: Collect
    done: "Future[Any]" = NOW  # where batches that run beside each other end in any order; elsewhere the oldest is the first
    recall: Callable[[], bool] = lambda: False  # takes it back if the device has not begun; False: it has, and is to be collected


class Backend(Protocol):
    """The model behind the engine. `prepare` is called from many threads, `launch` and what it returns from the engine's only."""

    model: Model
    device: str  # as torch names it
    budget_tokens: int
    max_rows: int
    padded: bool  # whether a batch costs rows x longest, or the sum of its lengths
    ahead: int  # batches that may be launched before one is collected; 0 where launching does all the work
    streams: int  # batches that run beside each other

    def prepare(self, contents: Sequence[Content], coverage: Coverage | None = None) -> Sequence[Prepared | Pieces | Unjudgeable]:
        """Tokenise; a content that cannot be judged becomes `Unjudgeable`, the others go on. `coverage`: of long ones."""

    def launch(self, batch: Sequence[Prepared]) -> Launched:
        """Give the device a batch.

        Either step raises DeviceFullError, DeviceLostError, or anything for a bad row; the same rows can then be given again.
        """

    def memory_bytes(self) -> int:
        """Device memory in use."""


class Synchronous(ABC):
    """Half a backend: one whose `run` returns the answers."""

    ahead, streams = 0, 1

    @abstractmethod
    def run(self, batch: Sequence[Prepared]) -> Sequence[Answer | Prepared]:
        """An answer for every row, in order."""

    def launch(self, batch: Sequence[Prepared]) -> Launched:
        """As `Backend.launch`; it has all been done by then."""
        answers = self.run(batch)
        return Launched(lambda: answers)


class Engine(Protocol):
    """Serves all task threads of a process with one device."""

    @property
    def model(self) -> Model:
        """What judges."""

    def submit(self, contents: Sequence[Content], *, urgent: bool = False, coverage: Coverage | None = None) -> "Future[Judged]":
        """Judge the texts; the future resolves once all are settled. Raises DrainingError when the engine takes no more.

        `coverage`: what of long texts is judged; None: what the engine was made for.
        """

    def start(self) -> None:
        """Start the engine thread. Safe to call twice."""

    def drain(self) -> None:
        """Finish the batch on the device; every other request fails with DrainingError. Returns at once; safe to call twice."""

    def stop(self, timeout_s: float = 30.0) -> None:
        """Drain and wait for the thread. Safe to call twice."""

    def busy_s(self) -> float:
        """How long the batch on the device has been running; 0 when there is none."""
