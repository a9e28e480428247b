"""What the engine promises, and what its backend must offer.

`Engine` is what task threads use. `Backend` is what the engine thread drives; replacing it changes the speed, never the meaning.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from guardfleet.domain.verdict import Model
from guardfleet.errors import RejectedError
from worker.engine.prompting.prompt import Content
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.windows import Coverage


class DeviceFullError(Exception):
    """The batch did not fit in the device's memory; a smaller one may."""


class KernelMissingError(Exception):
    """This torch lacks a kernel of the packed pass; the message names it."""


class SelfTestError(Exception):
    """The packed pass disagrees with transformers' own, or with itself, on this model and device."""


class DeviceLostError(Exception):
    """This process can no longer use the device; only a new process can."""


class Prepared(Protocol):
    """A row ready for the device."""

    @property
    def n_tokens(self) -> int:
        """Length of the prompt in tokens."""


@dataclass(frozen=True, slots=True)
class Unjudgeable:
    """A row that never reaches the device: a code of `verdict.ERROR_CODES`, and a detail without any text of the row."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Pieces:
    """A content that takes several rows: the characters that each of them shows, and what was left out (`rendering`).

    Without `spans`: a single row that shows all of it, with notes.
    """

    rows: "list[Prepared]"
    spans: list[tuple[int, int]]
    notes: Mapping[str, Any]


@dataclass(slots=True)  # frozen would make construction four times slower; nobody changes one
class Answer:
    """The model's answer for one text.

    `probabilities`: P(safe), P(controversial), P(unsafe) at the label's position, summing to 1; None if it was not reached.
    `categories`: P of each of `verdict.CATEGORY_CHOICES` to be named first, given an answer that the text is unsafe in one of them,
    whatever the answer was. They sum to 1, that of `None` is 0; an entry is None if the tokenizer allows no probability.
    `passes`: forward passes it took. `is_close`: some token won by so little that another batch could change it at this precision.
    `responds`: the mode that was asked for, whose grammar the answer must match. `flaw`: why it is invalid however well it reads,
    for example because it did not end. `failure` is set instead of `raw` if there is no answer. A content in pieces has `windows`,
    the answer for each with its characters, instead of all of these. `notes`: what was left out, which share of it
    the model does not know (`unknown_tokens`), and other remarks on the text.

    Of a detector other than the guard (`Model.detector`): `scores` of each of `Model.labels`; None with `is_too_short`, or without
    an answer. `reason`: its own words on why, if it was asked for them.
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
    scores: tuple[float, ...] | None = None
    is_too_short: bool = False
    reason: str | None = None


@dataclass(slots=True)
class Timings:
    """Where a request's time went, in seconds. `device_s` is the sum over the batches that had rows of it.

    `share_s`: its own part of the device's time, by tokens; of all requests together it is the time that the device was busy.
    """

    tokenise_s: float = 0.0
    wait_s: float = 0.0
    device_s: float = 0.0
    share_s: float = 0.0
    batches: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcome of one request: an answer for each text, in order."""

    answers: list[Answer]
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True)
class BatchReport:
    """Figures of one batch: `answered` of its rows now have their answer, `close` of these by a narrow lead."""

    rows: int
    tokens: int
    seconds: float
    answered: int
    close: int


Collect = Callable[[], Sequence[Answer | Prepared]]  # waits for a batch; returns each row's answer, or the row that continues it
NOW: "Future[Any]" = Future()
NOW.set_result(None)


class Launched(NamedTuple):
    """A batch that the device was given. It can be collected at any time, without waiting once `done` is done."""

    collect: Collect
    done: "Future[Any]" = NOW  # for batches that run in parallel and end in any order; elsewhere the oldest ends first
    recall: Callable[[], bool] = lambda: False  # take it back if the device has not begun; False: it has begun, collect it


class Backend(Protocol):
    """The model behind the engine. `prepare` is called by many threads, `launch` and what it returns by the engine's only."""

    model: Model
    device: str  # as torch names it
    budget_tokens: int
    max_rows: int
    padded: bool  # whether a batch costs rows x longest, or the sum of its lengths
    ahead: int  # batches that may be launched before one is collected; 0 if launching does all the work
    streams: int  # batches that run in parallel

    def prepare(
        self, contents: Sequence[Content], coverage: Coverage | None = None, policy: PromptPolicy | None = None
    ) -> Sequence[Prepared | Pieces | Unjudgeable]:
        """Tokenise; a content that cannot be judged becomes `Unjudgeable`. `coverage`: how much of long ones is judged.

        `policy`: what to judge by, for a model that takes it in its prompt. Raises RejectedError for one that it cannot take.
        """

    def launch(self, batch: Sequence[Prepared]) -> Launched:
        """Give the device a batch.

        Launching and collecting may raise DeviceFullError, DeviceLostError, or anything for a bad row; the rows can be given again.
        """

    def memory_bytes(self) -> int:
        """Return the device memory in use."""

    def memory_total_bytes(self) -> int:
        """Return the memory that the device has; 0 if it has none of its own."""


class Synchronous(ABC):
    """Base of backends whose `run` returns the answers."""

    ahead, streams = 0, 1

    @abstractmethod
    def run(self, batch: Sequence[Prepared]) -> Sequence[Answer | Prepared]:
        """Return an answer for every row, in order."""

    def launch(self, batch: Sequence[Prepared]) -> Launched:
        """As `Backend.launch`; all work is done on return."""
        answers = self.run(batch)
        return Launched(lambda: answers)


class Engine(Protocol):
    """Serves all task threads of a process with one device."""

    @property
    def model(self) -> Model:
        """The model that judges."""

    @property
    def is_padded(self) -> bool:
        """Whether rows are padded to the longest of their batch: the slow way, where the packed pass did not run."""

    def submit(
        self,
        contents: Sequence[Content],
        *,
        urgent: bool = False,
        coverage: Coverage | None = None,
        policy: PromptPolicy | None = None,
    ) -> "Future[Judged]":
        """Judge the texts; the future resolves once all are answered. Raises DrainingError if the engine accepts no more.

        `coverage`: how much of long texts is judged; None: as the engine is configured. `policy`: what to judge by, for a model
        that takes it in its prompt; None: the template's own. Raises RejectedError for a policy that the model cannot take.
        """

    def start(self) -> None:
        """Start the engine thread. Safe to call twice."""

    def drain(self) -> None:
        """Finish the batch on the device; all other requests fail with DrainingError. Returns at once; safe to call twice."""

    def stop(self, timeout_s: float = 30.0) -> None:
        """Drain and wait for the thread. Safe to call twice."""

    def busy_s(self) -> float:
        """Return how long the batch on the device has been running; 0 if there is none."""

    def memory_bytes(self) -> tuple[int, int]:
        """Return how much of the device's memory is in use, and how much it has; zeros where it has none of its own."""

    @property
    def device(self) -> str:
        """The device, as torch names it."""


def require_none(policy: PromptPolicy | None, model: Model) -> None:
    """Raise RejectedError if there is a policy, for a model whose prompt has no place for one."""
    if policy is not None:
        raise RejectedError(f"model {model.name!r} takes no policy: choose a detector that does, or give none.", param="policy")
