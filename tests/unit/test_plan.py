"""What may be asked of a job: each bound holds on both sides, and whoever passes one is told which."""

import re
from typing import Any

import pytest

from guardfleet.domain.cascade import is_sure
from guardfleet.domain.options import JobOptions
from guardfleet.domain.plan import COVERAGES, NAME_CHARS, Plan
from guardfleet.domain.retry import backoff_s, retry_after_s, webhook_delay_s
from guardfleet.domain.verdict import Judgement
from guardfleet.errors import RejectedError
from tests.services.judged import answered, failed
from worker.moderation.interpretation import EMPTY

NAME = "a model's name must have 1 to 200 characters, all printable."
SECOND = "the second model must differ from the first."
SURE = "confidence_threshold must be a probability: more than 0, at most 1."
SAMPLE = "audit_fraction must be a share: 0 to 1."
SAFE, UNSAFE = "Safety: Safe\nCategories: None", "Safety: Unsafe\nCategories: Violent"
COVERAGE = "long_texts must be one of windows, head, tail, ends."


@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan(model="m"),
        Plan(model="m" * NAME_CHARS, second_model="n"),
        Plan(second_model="n", sure=1.0, sample=0.0),
        Plan(sure=1e-9, sample=1.0),
        *(Plan(long_texts=coverage) for coverage in COVERAGES),
    ],
)
def test_a_plan_within_its_bounds_is_returned(plan: Plan) -> None:
    assert plan.check() is plan


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan(model=""), NAME),
        (Plan(model="m" * (NAME_CHARS + 1)), NAME),
        (Plan(model="a\nb"), NAME),
        (Plan(second_model=""), NAME),
        (Plan(second_model="n\x00"), NAME),
        (Plan(model="m", second_model="m"), SECOND),
        (Plan(sure=0.0), SURE),
        (Plan(sure=1.01), SURE),
        (Plan(sure=float("nan")), SURE),
        (Plan(sample=-0.01), SAMPLE),
        (Plan(sample=1.01), SAMPLE),
        (Plan(sample=float("nan")), SAMPLE),
        (Plan(long_texts="middle"), COVERAGE),
    ],
)
def test_a_plan_beyond_a_bound_is_refused_by_name(plan: Plan, said: str) -> None:
    with pytest.raises(RejectedError, match=f"^{re.escape(said)}$"):
        plan.check()


def test_a_second_detector_of_one_that_is_not_asked_is_refused() -> None:
    plan = Plan(detectors=("guard", "finder"), detector_cascades=("other=large",))
    with pytest.raises(RejectedError, match="a second detector for other, which is not among the job's detectors") as error:
        plan.check()
    assert error.value.param == "detector_cascades"


def test_a_second_detector_is_as_sure_as_it_is_told_else_as_the_job_says_and_judges_by_the_same_policy() -> None:
    options = JobOptions.of(
        detectors="custom/a@2,finder", detector_cascades="finder=large@0.80, custom=more", confidence_threshold=0.7
    )
    assert options.detector_cascades == ["custom=more", "finder=large@0.8"]
    plan = options.plan.check()
    found = {entry: plan.cascade_of(entry) for entry in plan.detectors}
    assert [plan.sure_of(one) for one in found.values() if one] == [0.7, 0.8]
    assert plan.second_entries == ["more/a@2", "large"]
    assert JobOptions.of(detector_cascades=[]).detector_cascades is None


@pytest.mark.parametrize(
    ("given", "param", "said"),
    [
        ({"priority": 101}, "priority", "priority cannot be 101: a priority must be a whole number from -100 to 100."),
        ({"priority": True}, "priority", "priority cannot be True: a priority must be a whole number from -100 to 100."),
        ({"confidence_threshold": 0, "name": 7}, "name", "name cannot be 7: Input should be a valid string."),
        ({"escalate_to": ""}, "escalate_to", "escalate_to cannot be '': String should have at least 1 character."),
        ({"unknown": 1}, "unknown", "unknown cannot be 1: Extra inputs are not permitted."),
        ({"detector_cascades": "ai-text"}, "detector_cascades", "'ai-text' names no two detectors: write ai-text=ai-text-large"),
        ({"detector_cascades": "A=b"}, "detector_cascades", "'A=b' names no two detectors"),
        ({"detector_cascades": "a=b/c"}, "detector_cascades", "'a=b/c' names no two detectors"),
        ({"detector_cascades": "a=a"}, "detector_cascades", "a cannot be its own second detector"),
        ({"detector_cascades": "a=b,a=c"}, "detector_cascades", "a has two second detectors: name one"),
        ({"detector_cascades": "guard=b"}, "detector_cascades", "the guard's second model is named by escalate_to"),
        *(
            ({"detector_cascades": [f"a=b@{wrong}"]}, "detector_cascades", f"{wrong!r} is no probability")
            for wrong in ("", "x", "0", "-1", "1.01", "nan", "inf")
        ),
        ({"detector_cascades": 7}, "detector_cascades", "second detectors are named as ai-text=ai-text-large@0.8"),
        ({"detector_cascades": [f"a{i}=b" for i in range(9)]}, "detector_cascades", "name at most 8 second detectors"),
        ({"completion_window": "7"}, "completion_window", "completion_window cannot be '7': a time is a whole number"),
        ({"sure": 0.5, "confidence_threshold": 0.6}, None, "sure is the old name of confidence_threshold: give only one of them."),
    ],
)
def test_the_first_wrong_option_is_named(given: dict[str, Any], param: str | None, said: str) -> None:
    with pytest.raises(RejectedError, match=re.escape(said)) as error:
        JobOptions.of(**given)
    assert error.value.param == param


def test_options_under_old_names_are_those_under_new_ones() -> None:
    with pytest.warns(DeprecationWarning, match="^sure is deprecated: use confidence_threshold$"):
        old = JobOptions.of(sure=0.5)
    assert old == JobOptions(confidence_threshold=0.5)
    assert old.plan == Plan(sure=0.5)
    assert old.stored()["sure"] == 0.5
    assert old.under_old_names()["sure"] == 0.5
    assert "name" not in old.under_old_names()


@pytest.mark.parametrize(("window", "seconds"), [("90m", 5400), ("24h", 86_400), ("7d", 604_800), (None, None)])
def test_a_completion_window_has_its_seconds(window: str | None, seconds: float | None) -> None:
    assert JobOptions(completion_window=window).window_s == seconds


def test_back_off_doubles_up_to_its_cap_and_is_never_less_than_half() -> None:
    least = [backoff_s(failures, base_s=2.0, cap_s=20.0, random=lambda: 0.0) for failures in (1, 2, 3, 4, 5, 2000)]
    most = [backoff_s(failures, base_s=2.0, cap_s=20.0, random=lambda: 1.0) for failures in (1, 2, 3, 4, 5, 2000)]
    assert least == [1, 2, 4, 8, 10, 10]
    assert most == [2, 4, 8, 16, 20, 20]


def test_a_webhook_s_schedule_ends_and_is_jittered_by_a_fifth() -> None:
    found = [[webhook_delay_s(n, schedule=(0, 5), random=lambda at=at: at) for n in (0, 1, 2)] for at in (0.0, 0.5, 1.0)]
    assert found == [[0, 4, None], [0, 5, None], [0, 6, None]]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("soon", None),
        ("-1", None),
        ("٣", None),
        ("", None),
    ],
)
def test_what_a_retry_after_header_asks_for(value: str, seconds: float | None) -> None:
    assert retry_after_s(value, now=100.0) == seconds


@pytest.mark.parametrize(
    ("judgement", "is_final"),
    [
        (answered(SAFE, (0.75, 0.2, 0.05)), True),
        (answered(SAFE, (0.74, 0.2, 0.06)), False),
        (answered(UNSAFE, (0.05, 0.2, 0.75)), True),
        (answered(UNSAFE, (0.07, 0.2, 0.73)), False),
        (answered(SAFE), False),
        (failed("engine_failed"), False),
        (EMPTY, True),
    ],
)
def test_a_first_answer_is_final_from_the_threshold_on_and_never_without_its_probabilities(
    judgement: Judgement, is_final: bool
) -> None:
    assert is_sure(judgement, 0.75) is is_final
