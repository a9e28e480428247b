"""How a job is to be judged: by which model, by a second one where the first is unsure, and how much of long texts."""

from dataclasses import dataclass

from guardfleet.errors import RejectedError

COVERAGES = ("windows", "head", "tail", "ends")
NAME_CHARS = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """What a caller asks of the judging; None where it is left to the workers.

    `model`: only workers with this model take the job. `second_model`: judges again what the first gave its severity a probability
    below `sure`, and a random share `sample` of the rest, which is only compared: what the first was sure of is final.
    `long_texts`: as the setting of the same name.
    """

    model: str | None = None
    second_model: str | None = None
    sure: float = 0.9
    sample: float = 0.01
    long_texts: str | None = None

    def check(self) -> "Plan":
        """Itself; raises RejectedError for what cannot be carried out."""
        for name in (self.model, self.second_model):
            if name is not None and not (0 < len(name) <= NAME_CHARS and name.isprintable()):
                raise RejectedError("a model's name is printable and has 1 to 200 characters.")
        if self.second_model is not None and self.second_model == self.model:
            raise RejectedError("the second model is to be another than the first.")
        if not 0 < self.sure <= 1:
            raise RejectedError("sure is a probability: more than 0, at most 1.")
        if not 0 <= self.sample <= 1:
            raise RejectedError("sample is a share: 0 to 1.")
        if self.long_texts is not None and self.long_texts not in COVERAGES:
            raise RejectedError(f"long_texts is one of {', '.join(COVERAGES)}.")
        return self


DEFAULT_PLAN = Plan()


@dataclass(frozen=True, slots=True)
class Escalation:
    """What a second model was asked, in texts: `escalated` the first was unsure of, `sampled` it was sure of.

    `agreed` of the sampled got the same severity from both.
    """

    escalated: int = 0
    sampled: int = 0
    agreed: int = 0


NONE_ESCALATED = Escalation()
