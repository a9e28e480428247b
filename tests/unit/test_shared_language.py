"""Settings, keys, signatures, addresses, states, log slugs: the language that every process shares."""

import pathlib
import re
from enum import IntEnum

import pytest
from standardwebhooks import Webhook

from guardfleet import packages, states
from guardfleet.addresses import is_allowed
from guardfleet.errors import ConfigurationError
from guardfleet.sealing import Keyring, PayloadRow, new_secret_key
from guardfleet.settings import Settings, load_settings
from guardfleet.signing import is_secret, new_secret, sign
from guardfleet.telemetry.logs import SLUGS
from guardfleet.verdict import CATEGORY_NAMES, ERROR_CODES, categories_of, category_names, failure

ROOT = pathlib.Path(__file__).parents[2]
DATABASE = "postgresql://user:hunter2@db/x"


def test_an_unknown_setting_stops_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDFLEET_BATCH_TOKEN", "5")
    with pytest.raises(ConfigurationError, match="unknown setting GUARDFLEET_BATCH_TOKEN"):
        load_settings()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("BATCH_TOKENS", "-5", r"GUARDFLEET_BATCH_TOKENS = '-5': Input should be greater than or equal to 0"),
        ("DEVICE", "gpu", r"GUARDFLEET_DEVICE = 'gpu'"),
        ("ENGINE", "vllm", r"'model' or 'instant'"),
        ("BROKER_URL", "kafka://x", r"broker_url has scheme 'kafka'; allowed: amqp"),
        ("DATABASE_URL", DATABASE, r"secret_key is needed with database_url"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(monkeypatch: pytest.MonkeyPatch, key: str, value: str, said: str) -> None:
    monkeypatch.setenv(f"GUARDFLEET_{key}", value)
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "taken"),
    [
        ("WEBHOOK_ALLOW_NETWORKS", "127.0.0.0/8", ("127.0.0.0/8",)),
        ("WEBHOOK_ALLOW_NETWORKS", " 10.0.0.0/8 , fc00::/7,", ("10.0.0.0/8", "fc00::/7")),
        ("WEBHOOK_ALLOW_NETWORKS", '["10.0.0.0/8"]', ("10.0.0.0/8",)),
        ("WEBHOOK_ALLOW_NETWORKS", "", ()),
        ("WEBHOOK_SCHEDULE_S", "0,5", (0.0, 5.0)),
        ("WEBHOOK_SCHEDULE_S", "[0, 1.5]", (0.0, 1.5)),
    ],
)
def test_a_list_is_taken_with_commas_between(
    monkeypatch: pytest.MonkeyPatch, key: str, value: str, taken: tuple[object, ...]
) -> None:
    monkeypatch.setenv(f"GUARDFLEET_{key}", value)
    assert getattr(load_settings(), key.lower()) == taken


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "WEBHOOK_ALLOW_NETWORKS",
            "10.0.0.0/8,nonsense",
            r"^GUARDFLEET_WEBHOOK_ALLOW_NETWORKS, item 2 = 'nonsense': .*give networks as",
        ),
        ("WEBHOOK_ALLOW_NETWORKS", "10.0.0.1/8", r"host bits set; give networks as"),
        ("WEBHOOK_ALLOW_NETWORKS", "[1,", r"^GUARDFLEET_WEBHOOK_ALLOW_NETWORKS = '\[1,': "),
        ("WEBHOOK_SCHEDULE_S", "0,soon", r"^GUARDFLEET_WEBHOOK_SCHEDULE_S, item 2 = 'soon': Input should be a valid number"),
        ("WEBHOOK_SCHEDULE_S", "0,nan", r"^GUARDFLEET_WEBHOOK_SCHEDULE_S, item 2 = "),
        ("WEBHOOK_SCHEDULE_S", "0,-1", r"^GUARDFLEET_WEBHOOK_SCHEDULE_S, item 2 = '-1': "),
        ("WEBHOOK_SCHEDULE_S", "", r"^GUARDFLEET_WEBHOOK_SCHEDULE_S = "),
        ("DATABASE_URL", "mysql://u:hunter2@h/d", r"^GUARDFLEET_DATABASE_URL: the scheme is 'mysql'; allowed: postgresql"),
        ("DATABASE_URL", "postgresql://u:hunter2@h:port/d", r"^GUARDFLEET_DATABASE_URL: this is no URL"),
    ],
)
def test_a_wrong_item_or_url_is_one_sentence(monkeypatch: pytest.MonkeyPatch, key: str, value: str, said: str) -> None:
    monkeypatch.setenv(f"GUARDFLEET_{key}", value)
    monkeypatch.setenv("GUARDFLEET_SECRET_KEY", new_secret_key())
    with pytest.raises(ConfigurationError, match=said) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_without_a_home_settings_load_and_the_data_folder_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import pwd

    from guardfleet.embedded.ownership import make_folder

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigurationError, match=r"HOME is not set\): set GUARDFLEET_DATA_DIR"):
        make_folder(load_settings().data_dir)


def test_a_relative_data_folder_is_one_of_this_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(data_dir="data").data_dir == tmp_path / "data"


def test_settings_do_not_print_their_secrets() -> None:
    shown = repr(Settings(database_url=DATABASE, broker_url="amqp://u:hunter3@b", secret_key="hunter4"))  # type: ignore[arg-type]
    assert "hunter" not in shown


def test_settings_survive_the_way_to_a_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = load_settings(
        database_url=DATABASE,
        secret_key=new_secret_key(),
        broker_url="redis://r",
        webhook_schedule_s=(0.0, 1.5),
        webhook_allow_networks=("127.0.0.0/8",),
        lease_s=7.0,
    )
    for key, value in ours.as_environment().items():
        monkeypatch.setenv(key, value)
    assert load_settings() == ours


def test_a_key_of_the_wrong_length_is_refused() -> None:
    for bad in ("short", "!!", ""):
        with pytest.raises(ConfigurationError, match="keys secret"):
            Keyring(bad)


def test_a_sealed_blob_opens_only_in_its_place_and_with_its_key() -> None:
    ring, rows = Keyring(new_secret_key()), [PayloadRow("1", "x")]
    key = ring.new_data_key()
    blob = ring.seal_rows(key, rows, job_id=1, shard_no=2)
    for ring_, key_, place in ((ring, key, (1, 3)), (ring, key, (2, 2)), (ring, ring.new_data_key(), (1, 2))):
        with pytest.raises(ConfigurationError, match="does not open"):
            ring_.open_rows(key_, blob, job_id=place[0], shard_no=place[1])
    with pytest.raises(ConfigurationError, match="does not open"):
        Keyring(new_secret_key()).open_rows(key, blob, job_id=1, shard_no=2)
    with pytest.raises(ConfigurationError, match="unknown version"):
        ring.open_rows(key, b"\x09" + blob[1:], job_id=1, shard_no=2)


def test_signatures_are_those_of_the_scheme() -> None:
    secret, body = new_secret(), b'{"a": 1}'
    import time

    headers = sign([new_secret(), secret], event_id="evt_1", timestamp_s=int(time.time()), body=body)
    assert Webhook(secret).verify(body, headers) == {"a": 1}


def test_the_golden_signature() -> None:
    headers = sign(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        event_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp_s=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_that_some_reader_would_refuse_are_none() -> None:
    assert is_secret(new_secret())
    for bad in ("whsec_" + "a" * 31, "whsec_abc", "a" * 32, "whsec_????", "whsec_" + "a" * 200):
        assert not is_secret(bad)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",  # noqa: S104
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.88.99.1",
        "168.63.129.16",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff0e::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "fec0::1",
        "3fff::1",
        "5f00::1",
        "2001::1",
        "2001:db8::1",
        "fe80::1%eth0",
    ],
)
def test_webhooks_reach_no_private_reserved_or_wrapped_address(address: str) -> None:
    assert not is_allowed(address, [])


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_webhooks_reach_public_addresses(address: str) -> None:
    assert is_allowed(address, [])


def test_webhooks_reach_a_private_network_that_the_operator_allows() -> None:
    import ipaddress

    allowed = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fc00::/7")]
    assert is_allowed("10.1.2.3", allowed)
    assert is_allowed("::ffff:10.1.2.3", allowed)
    assert is_allowed("fc00::1", allowed)
    assert not is_allowed("127.0.0.1", allowed)


def test_every_category_has_a_name_and_finds_back() -> None:
    for bit, name in CATEGORY_NAMES.items():
        assert category_names(bit) == [name]
        assert categories_of([name]) == bit
    with pytest.raises(KeyError):
        categories_of(["Weather"])
    with pytest.raises(KeyError):
        failure("unheard-of")
    assert ERROR_CODES


def edges(chart: str) -> set[tuple[str, str, str]]:
    return {(a.lower(), b.lower(), verb) for a, b, verb in re.findall(r"^ *(\w+) --> (\w+): (\w+)$", chart, re.MULTILINE)}


@pytest.mark.parametrize("kind", [states.JobState, states.ShardState, states.DeliveryState])
def test_the_chart_in_the_docs_is_the_table_in_the_code(kind: type[IntEnum]) -> None:
    page = (ROOT / "docs" / "states.md").read_text()
    chart = re.search(rf"## {kind.__name__}\n.*?```mermaid\n(.*?)```", page, re.DOTALL)
    assert chart is not None
    table = {(a.name.lower(), b.name.lower(), verb) for verb, moves in states.TRANSITIONS[kind].items() for a, b in moves}
    assert edges(chart[1]) == table
    assert {name for a, b, _ in table for name in (a, b)} == {state.name.lower() for state in kind}


def test_every_log_slug_is_declared_and_used() -> None:
    code = "".join(path.read_text() for part in ("guardfleet", "worker", "producer", "api") for path in (ROOT / part).rglob("*.py"))
    used = set(re.findall(r"(?:get_logger\(\)|\blog)\.(?:debug|info|warning|error)\(\s*\"([a-z_]+)\"", code))
    assert used - set(SLUGS) == set()
    assert {slug for slug in SLUGS if f'"{slug}"' not in code.replace(str(SLUGS), "")} == set()


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
    from guardfleet.broker import make_app

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
    from worker.lifecycle import refuse_soft_shutdown

    monkeypatch.setenv("REMAP_SIGTERM", "SIGQUIT")
    with pytest.raises(ConfigurationError, match="unset it"):
        refuse_soft_shutdown()
