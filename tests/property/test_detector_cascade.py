"""Which texts a second detector is asked about, and who judges when: the same in every process, whatever was said."""

import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from guardfleet.domain.cascade import compare_detections, detector_doubts_of, is_sure_detection
from guardfleet.domain.detection import Detection, Outcome, failed, label_of
from guardfleet.domain.plan import NONE_ESCALATED, DetectorCascade, Escalation, Plan, cascades_of, detectors_of
from guardfleet.domain.verdict import ERASED, Model
from guardfleet.store.shards.handoff import Provisional, Said, as_plain, of_blob
from worker.moderation.outcome import next_route

ONE_OF = Model("f", "1", "p", detector="finder", labels=("clear", "found", "both"), neutral="clear")
APART = Model("t", "1", "p", detector="topics", labels=("art", "sport", "war"))
CASCADE = DetectorCascade("finder", "large")


def scored(model: Model, scores: list[float]) -> Detection:
    total = sum(scores) or 1.0
    said = tuple(score / total for score in scores) if model.neutral is not None else tuple(scores)
    label = label_of(model, said)
    return Detection(Outcome.UNLABELLED if label is None else Outcome.LABELLED, label, said, input_tokens=7)


def detections(model: Model) -> st.SearchStrategy[Detection]:
    scores = st.lists(st.floats(0.001, 1), min_size=3, max_size=3)
    others = [Detection(Outcome.TOO_SHORT), failed("engine_failed", "why"), failed(ERASED)]
    return st.one_of(scores.map(lambda found: scored(model, found)), st.sampled_from(others))


models = st.sampled_from([ONE_OF, APART])
said_by = models.flatmap(lambda model: st.tuples(st.just(model), st.lists(detections(model), max_size=30)))
plans = st.builds(Plan, sure=st.floats(0.01, 1), sample=st.floats(0, 1))


def digests(n: int) -> list[bytes]:
    return [hashlib.sha256(str(i).encode()).digest()[:16] for i in range(n)]


@given(plans, said_by)
def test_every_text_is_sure_or_asked_and_the_sample_is_of_the_sure(plan: Plan, said: tuple[Model, list[Detection]]) -> None:
    model, first = said
    doubts = detector_doubts_of(plan, CASCADE, first, model, digests(len(first)))
    assert set(doubts.unsure) == {i for i, one in enumerate(first) if not is_sure_detection(one, model, plan.sure)}
    assert not set(doubts.unsure) & set(doubts.sampled)
    assert doubts == detector_doubts_of(plan, CASCADE, first, model, digests(len(first)))
    assert all(first[i].outcome is not Outcome.TOO_SHORT and first[i].error != ERASED for i in doubts.asked)
    assert all(i in doubts.unsure for i, one in enumerate(first) if one.error == "engine_failed")
    assert detector_doubts_of(plan, None, first, model, digests(len(first))).asked == []
    own = compare_detections(doubts, first, dict(enumerate(first)))
    assert own == Escalation(len(doubts.unsure), len(doubts.sampled), len(doubts.sampled))


@given(said_by, st.floats(0.01, 1))
def test_a_lower_threshold_asks_no_more(said: tuple[Model, list[Detection]], least: float) -> None:
    model, first = said
    unsure = [
        set(detector_doubts_of(Plan(sure=sure), CASCADE, first, model, digests(len(first))).unsure) for sure in (least, least / 2)
    ]
    assert unsure[1] <= unsure[0]


def test_of_labels_that_are_found_apart_each_has_to_be_sure() -> None:
    for scores, is_sure in (([0.95, 0.02, 0.03], True), ([0.95, 0.4, 0.03], False), ([0.02, 0.01, 0.0], True)):
        assert is_sure_detection(scored(APART, scores), APART, 0.9) is is_sure


names = st.sampled_from(["finder", "topics", "other", "custom/a@1", "custom/b@2"])
rosters = st.tuples(st.lists(names, min_size=1, unique=True), st.booleans())


@given(rosters, st.sets(st.sampled_from(["finder", "topics", "custom"])), st.data())
def test_each_detector_judges_once_and_its_second_one_right_after_it(
    roster: tuple[list[str], bool], cascaded: set[str], data: st.DataObject
) -> None:
    asked, with_guard = roster
    detectors = detectors_of([*asked, *(["guard"] if with_guard else [])])
    mine = cascaded & {name.partition("/")[0] for name in asked}
    plan = Plan(detectors=detectors, detector_cascades=tuple(f"{name}={name}-large@0.8" for name in sorted(mine))).check()
    said, went, wanted = Provisional(None, [], is_settled=True), [], []
    for name in dict.fromkeys(entry.partition("/")[0] for _, entry in plan.others):
        entries = [(place, entry) for place, entry in plan.others if entry.partition("/")[0] == name]
        open_ones = [name in mine and data.draw(st.booleans()) for _ in entries]
        wanted += [f"detector:{name}", *([f"detector:{name}-large"] if any(open_ones) else [])]
        went.append(next_route(plan, said))
        before = said.said
        turns = zip(entries, open_ones, strict=True)
        said = Provisional(
            None, [], is_settled=True, said=[*before, *(Said(place, 1, [], is_settled=not waits) for (place, _), waits in turns)]
        )
        if any(open_ones):
            went.append(next_route(plan, said))
            said = Provisional(
                None, [], is_settled=True, said=[*before, *(Said(place, 1, [], others={0: 2}) for place, _ in entries)]
            )
    assert went == wanted
    assert next_route(plan, said) is None


cascaded_said = st.builds(
    Said,
    st.integers(0, 7),
    st.integers(1, 9),
    st.lists(detections(ONE_OF), min_size=6, max_size=6),
    st.booleans(),
    st.dictionaries(st.integers(0, 5), st.integers(1, 9)),
    st.builds(Escalation, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
)


@given(st.lists(cascaded_said, max_size=3), st.integers(1, 5))
def test_what_was_said_survives_its_sealing_and_its_halves_are_all_of_it(said: list[Said], middle: int) -> None:
    whole = Provisional(None, [], is_settled=True, said=said)
    assert of_blob(json.loads(json.dumps(as_plain(whole))), None) == whole
    for one in said:
        left, right = one.part(0, middle), one.part(middle, 6)
        assert left.detections + right.detections == one.detections
        assert left.others | {i + middle: model for i, model in right.others.items()} == one.others
        assert (left.escalation, right.escalation) == (one.escalation, NONE_ESCALATED)


@given(st.dictionaries(st.sampled_from(["finder", "topics", "ai-text"]), st.none() | st.floats(1e-9, 1), min_size=1))
def test_a_cascade_is_read_as_it_is_written(asked: dict[str, float | None]) -> None:
    written = cascades_of([str(DetectorCascade(name, f"{name}-large", sure)) for name, sure in asked.items()])
    assert {one.first: one.sure for one in map(DetectorCascade.of, written)} == asked
    assert cascades_of(written) == written
