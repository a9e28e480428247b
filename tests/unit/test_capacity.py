"""`guardfleet plan`: what it reads, what it refuses, and figures that agree with each other."""

import json
import pathlib
from dataclasses import replace

import pytest

from guardfleet.domain import capacity, rates
from guardfleet.domain.capacity import Load, count_of, seconds_of, tokens_of
from guardfleet.errors import RejectedError
from tests.services.commands import said

ROOT = pathlib.Path(__file__).parents[2]
NIGHT = Load(texts=50_000_000, tokens=120, gpu="h100", model="8B", deadline_s=8 * 3600, shard_texts=1024, price=2.5)


def figures(load: Load) -> dict[str, float]:
    return {one.name: one.value for one in capacity.plan(load)}


@pytest.mark.parametrize(
    ("typed", "n"),
    [
        ("50M", 50_000_000),
        ("1.5k", 1500),
        ("2G", 2 * 10**9),
        ("3b", 3 * 10**9),
        ("200_000", 200_000),
        ("1,000", 1000),
        ("1,234,567.5k", 1_234_567_500),
    ],
)
def test_a_number_of_texts_is_read(typed: str, n: int) -> None:
    assert count_of(typed) == n


@pytest.mark.parametrize(("typed", "seconds"), [("8h", 28_800), ("90m", 5400), ("2d", 172_800), ("1.5h", 5400), ("600s", 600)])
def test_a_time_is_read(typed: str, seconds: float) -> None:
    assert seconds_of(typed) == seconds


@pytest.mark.parametrize(
    "typed", ["", "0", "-5", "M", "5 apples", "1e9", "nan", "inf", "0.0001", "9" * 15 + "G", "1,5k", "1,00", ",5", "1,2345"]
)
def test_nonsense_is_no_number(typed: str) -> None:
    with pytest.raises(RejectedError, match="texts cannot be"):
        count_of(typed)


@pytest.mark.parametrize("typed", ["", "8", "h", "-8h", "0h", "2m", "1e3h", "nanh", "8 hours"])
def test_nonsense_is_no_time(typed: str) -> None:
    with pytest.raises(RejectedError, match="deadline cannot be"):
        seconds_of(typed)


@pytest.mark.parametrize("given", [None, 0.0, -1.0, float("nan"), float("inf"), 2e6])
def test_nonsense_is_no_length(given: float | None) -> None:
    with pytest.raises(RejectedError, match="length of a text is needed"):
        tokens_of(given, None)


def test_two_lengths_are_refused() -> None:
    with pytest.raises(RejectedError, match="not both"):
        tokens_of(60, 80)


@pytest.mark.parametrize("wrong", [{"gpu": "abacus"}, {"model": "70B"}, {"price": -1.0}, {"price": float("nan")}, {"price": 1e300}])
def test_what_is_not_known_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RejectedError, match="cannot be"):
        capacity.plan(replace(NIGHT, **wrong))  # type: ignore[arg-type]


def test_the_figures_agree_with_each_other() -> None:
    found = figures(NIGHT)
    assert found["devices"] * found["hours"] == pytest.approx(found["device_hours"])
    assert found["hours"] <= 8
    assert found["device_hours"] * 2.5 == pytest.approx(found["cost"])
    assert found["cost"] / 50 == pytest.approx(found["cost_per_million_texts"])
    assert found["database_growth"] * 1e9 == pytest.approx(
        50e6 * (found["verdict_bytes_per_text"] + found["sealed_bytes_per_text"])
    )
    assert found["broker_messages"] == 48_829
    one_less = found["texts_per_device_second"] * rates.SCALING * (found["devices"] - 1) * (8 * 3600 - rates.LOAD_S)
    assert one_less < NIGHT.texts  # one device fewer would miss the deadline
    assert figures(replace(NIGHT, price=None)).keys() == found.keys() - {"cost", "cost_per_million_texts"}


@pytest.mark.parametrize("gpu", list(rates.DEVICES))
def test_longer_texts_and_larger_models_take_longer(gpu: str) -> None:
    at = {model: figures(replace(NIGHT, gpu=gpu, model=model))["texts_per_device_second"] for model in rates.MODELS}
    assert at["0.6B"] > at["4B"] > at["8B"] > 0
    assert figures(replace(NIGHT, gpu=gpu, tokens=500))["texts_per_device_second"] < at["8B"]


def test_the_measured_run_is_given_back_as_measured_and_nothing_else_of_a_device_is() -> None:
    run = replace(NIGHT, gpu="cpu", model="0.6B", tokens=rates.CPU_TOKENS, texts=1000)
    (rate, *_) = capacity.plan(run)
    assert (round(rate.value, 2), rate.basis) == (1.31, "measured")
    for gpu in rates.DEVICES:
        (rate, *_) = capacity.plan(replace(NIGHT, gpu=gpu))
        assert rate.basis == "estimated"


def test_each_source_exists_and_has_the_figure() -> None:
    assert "**1.31**" in (ROOT / rates.ENGINE_RUN).read_text()
    pipeline = (ROOT / rates.PIPELINE_RUN).read_text()
    for figure in ("140 of the corpus", "183-214 of verdicts", "385 over ten million", "19 us of a core", "0.966"):
        assert figure in pipeline


def test_the_command_prints_one_object_and_refuses_what_it_cannot_read(tmp_path: pathlib.Path) -> None:
    asked = ("plan", "--texts", "50M", "--tokens-p50", "60", "--gpu", "h100", "--model", "8B", "--deadline", "8h")
    printed = json.loads(said(tmp_path, *asked, "--price-per-gpu-hour", "2.5", "--json").stdout)
    assert printed["load"]["tokens"] == 120
    assert {name: one["value"] for name, one in printed["figures"].items()} == figures(NIGHT)
    table = said(tmp_path, *asked)
    assert "[measured]" in table.stdout
    assert "[estimated]" in table.stdout
    assert said(tmp_path, *asked[:-1], "soon").returncode == 2
