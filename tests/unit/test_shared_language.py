"""States, categories, log slugs, packages, Celery's settings: the vocabulary that every process shares."""

import pathlib
import re
import uuid
from enum import IntEnum

import pytest

from guardfleet.domain import actions, events, ids, states
from guardfleet.domain.verdict import CATEGORY_NAMES, ERROR_CODES, categories_of, category_names, failure
from guardfleet.errors import ConfigurationError, NotFoundError
from guardfleet.process import packages
from guardfleet.settings import load_settings
from guardfleet.telemetry.logs import SLUGS

ROOT = pathlib.Path(__file__).parents[2]
CODE = ("guardfleet", "worker", "producer", "api")


def test_every_category_has_a_name_and_finds_back() -> None:
    for bit, name in CATEGORY_NAMES.items():
        assert category_names(bit) == [name]
        assert categories_of([name]) == bit
    with pytest.raises(KeyError):
        categories_of(["Weather"])
    with pytest.raises(KeyError):
        failure("unheard-of")
    assert ERROR_CODES


@pytest.mark.parametrize(
    "kind", [value for value in vars(ids).values() if isinstance(value, ids.Kind)], ids=lambda kind: kind.prefix
)
def test_a_public_id_finds_back_and_nonsense_is_refused(kind: ids.Kind) -> None:
    public_id = uuid.uuid4()
    assert kind.parse(kind.of(public_id)) == public_id
    with pytest.raises(NotFoundError):
        kind.parse("nonsense {}")


def test_a_job_is_found_by_what_the_api_calls_it() -> None:
    public_id = uuid.uuid4()
    assert ids.JOB.parse(ids.BATCH.of(public_id)) == public_id


def test_each_final_state_of_a_job_is_told() -> None:
    assert events.ENDS.keys() == {state for state in states.JobState if state.is_final}
    assert tuple(events.ENDS.values()) == events.END_KINDS
    assert {*events.END_KINDS, events.PROGRESS, events.FLAGGED} == set(events.KINDS)


def edges(chart: str) -> set[tuple[str, str, str]]:
    return {(a.lower(), b.lower(), verb) for a, b, verb in re.findall(r"^ *(\w+) --> (\w+): (\w+)$", chart, re.MULTILINE)}


@pytest.mark.parametrize("kind", list(states.TRANSITIONS))
def test_the_chart_in_the_docs_is_the_table_in_the_code(kind: type[IntEnum]) -> None:
    page = (ROOT / "docs" / "states.md").read_text()
    chart = re.search(rf"## {kind.__name__}\n.*?```mermaid\n(.*?)```", page, re.DOTALL)
    assert chart is not None
    table = {(a.name.lower(), b.name.lower(), verb) for verb, moves in states.TRANSITIONS[kind].items() for a, b in moves}
    assert edges(chart[1]) == table
    assert {name for a, b, _ in table for name in (a, b)} == {state.name.lower() for state in kind}


def test_every_log_slug_is_declared_and_used() -> None:
    code = "".join(path.read_text() for part in CODE for path in (ROOT / part).rglob("*.py"))
    used = set(re.findall(r"(?:get_logger\(\)|\blog)\.(?:debug|info|warning|error)\(\s*\"([a-z_]+)\"", code))
    assert used - set(SLUGS) == set()
    assert {slug for slug in SLUGS if f'"{slug}"' not in code.replace(str(SLUGS), "")} == set()


def test_the_page_of_the_audit_trail_lists_every_action_and_actor() -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.+) \|$", (ROOT / "docs" / "audit.md").read_text(), re.MULTILINE))
    assert {name: told for name, told in rows.items() if "." in name} == actions.ACTIONS
    assert {name: told for name, told in rows.items() if name in actions.ACTORS} == actions.ACTORS
    code = "".join(path.read_text() for part in CODE for path in (ROOT / part).rglob("*.py") if path.name != "actions.py")
    assert [action for action in actions.ACTIONS if f'"{action}"' not in code] == []


def others_with(name: str) -> set[str]:
    """Other distributions that bring a package of this name. Of an editable install Python names none."""
    from importlib.metadata import packages_distributions

    return set(packages_distributions().get(name, [])) - {"guardfleet"}


def test_each_package_name_belongs_to_this_distribution_alone(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [others_with(name) for name in packages.NAMES] == [set()] * 3
    assert [packages.place_of(name) for name in packages.NAMES] == [ROOT / name for name in packages.NAMES]
    foreign = tmp_path / "foreign-1.0.dist-info"
    foreign.mkdir()
    (foreign / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (foreign / "top_level.txt").write_text("worker\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert others_with("worker") == {"foreign"}  # so the look above can fail


def test_celery_is_set_up_as_the_pitfalls_demand() -> None:
    from guardfleet.broker.celery_app import make_app

    for url in ("amqp://u@h//", "redis://h/0"):
        conf = make_app(load_settings(broker_url=url), "t").conf
        assert conf.task_acks_late is True
        assert conf.worker_prefetch_multiplier == 1
        assert conf.worker_enable_prefetch_count_reduction is False  # else a reconnect deadlocks the threads pool
        assert conf.broker_channel_error_retry is True
        assert conf.broker_connection_max_retries is None
        assert conf.worker_soft_shutdown_timeout == 0
        assert conf.result_backend is None
        for queue in conf.task_queues:
            assert queue.exchange.type == "direct"  # so that publishing needs no binding
            assert (queue.queue_arguments or {}).get("x-queue-type") == ("quorum" if url.startswith("amqp") else None)
    redis = make_app(load_settings(broker_url="redis://h/0"), "t").conf
    assert redis.broker_transport_options["unacked_restore_throttle"] == 1
    assert redis.broker_transport_options["visibility_timeout"] == redis.visibility_timeout == 300
    assert make_app(load_settings(broker_url="amqp://h"), "t").conf.broker_transport_options == {"confirm_publish": True}


@pytest.mark.parametrize("url", ["memory://", "filesystem://", "sqla+postgresql://h/d", "pgmq://h/d", "sqs://"])
def test_only_brokers_that_keep_what_is_in_flight_are_taken(url: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed: amqp"):
        load_settings(broker_url=url)


def test_the_pinned_libraries_are_those_without_the_pitfalls() -> None:
    from importlib.metadata import version

    for name, least in (("celery", (5, 7)), ("kombu", (5, 7)), ("redis", (6, 4)), ("packaging", (20, 0))):
        assert tuple(map(int, version(name).split(".")[:2])) >= least


def test_a_worker_refuses_remapped_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.process.lifecycle import refuse_soft_shutdown

    monkeypatch.setenv("REMAP_SIGTERM", "SIGQUIT")
    with pytest.raises(ConfigurationError, match="unset it"):
        refuse_soft_shutdown()
