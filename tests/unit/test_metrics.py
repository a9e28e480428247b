"""Metrics: each belongs to a process, is updated somewhere, and says nothing before it knows something."""

import pathlib
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfleet.telemetry import metrics
from guardfleet.telemetry.collectors import Durations, Known, RollingShare

ROOT = pathlib.Path(__file__).parents[2]
OWNED = {id(metric): metric for group in (metrics.EVERY, *metrics.OWNERS.values()) for metric in group}
DECLARED = {name: value for name, value in vars(metrics).items() if name.isupper() and hasattr(value, "describe")}
TENANTS = re.compile(r"tenant|job|text|url|key|request_id|batch")
SECONDS = st.floats(0, 100)


def test_each_metric_has_an_owner() -> None:
    assert [name for name, metric in DECLARED.items() if id(metric) not in OWNED] == []


def test_each_metric_is_updated_somewhere() -> None:
    folders = ("guardfleet", "worker", "api")
    code = (
        "\n".join(path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py") if path.name != "metrics.py")
        + (ROOT / "guardfleet/telemetry/metrics.py").read_text().partition("def registry_of")[2]
    )
    assert [
        name for name in DECLARED if not re.search(rf"(metrics\.|\b){name}\.(labels|inc|set|put|replace|observe|add|info)", code)
    ] == []


@pytest.mark.parametrize("process", metrics.OWNERS)
def test_no_label_names_a_tenant_a_job_or_a_text(process: str) -> None:
    for metric in (*metrics.EVERY, *metrics.OWNERS[process]):
        labels = metric.labels if isinstance(metric, Known | Durations | RollingShare) else metric._labelnames
        assert [label for label in labels if TENANTS.search(label)] == []


@pytest.mark.parametrize("process", metrics.OWNERS)
def test_a_process_exports_its_own_metrics_and_no_others(process: str) -> None:
    found = {family.name for family in metrics.registry_of(process).collect()}
    own = {family.name for metric in (*metrics.EVERY, *metrics.OWNERS[process]) for family in metric.describe()}
    standard = {name for name in found if name.startswith(("process_", "python_"))}
    assert found - standard <= own


def test_what_is_not_known_is_not_exported() -> None:
    gauge = Known("x", "x", ["label"])
    assert list(gauge.collect()) == []
    gauge.put(("a",), 1)
    gauge.put(("b",), 2)
    (family,) = gauge.collect()
    assert [sample.value for sample in family.samples] == [1, 2]
    gauge.replace({("c",): 3})
    (family,) = gauge.collect()
    assert [sample.labels for sample in family.samples] == [{"label": "c"}]
    gauge.forget()
    assert list(gauge.collect()) == []


@given(st.lists(st.tuples(SECONDS, st.integers(1, 1000))))
def test_a_histogram_counts_many_at_once_as_one_by_one(observed: list[tuple[float, int]]) -> None:
    bounds = (0.1, 1.0, 10.0)
    many = Durations("x", "x", ["method"], buckets=bounds)
    for seconds, n in observed:
        many.observe(("prompt",), seconds, n)
    samples = {sample.labels.get("le", sample.name): sample.value for family in many.collect() for sample in family.samples}
    each = [seconds for seconds, n in observed for _ in range(n)]
    if not each:
        assert samples == {}
        return
    for bound in bounds:
        assert samples[str(bound)] == sum(seconds <= bound for seconds in each)
    assert samples["+Inf"] == samples["x_count"] == len(each)
    assert samples["x_sum"] == pytest.approx(sum(each))


def test_the_share_is_of_the_last_minutes_and_silent_without_texts() -> None:
    now = [0.0]
    share = RollingShare("x", "x", window_s=300, clock=lambda: now[0])
    value = lambda: [sample.value for family in share.collect() for sample in family.samples]  # noqa: E731
    assert value() == []
    share.add(1, 4)
    now[0] = 200.0
    share.add(3, 4)
    assert value() == [0.5]
    now[0] = 400.0
    assert value() == [0.75]
    now[0] = 600.0
    assert value() == []


def test_the_page_is_one_that_prometheus_reads() -> None:
    # In a process of its own: other tests of this one judge texts.
    act = "from prometheus_client import generate_latest as page; from guardfleet.telemetry.metrics import registry_of as of"
    said = subprocess.run([sys.executable, "-c", f"{act}; print(page(of('worker')).decode())"], capture_output=True, check=True)
    page = said.stdout.decode()
    assert 'qwen_guard_request_total{method="prompt",result="safe"}' in page
    assert "qwen_guard_safe_ratio" not in page, "no text was judged"
