"""Settings: each wrong value gives one sentence, no secret is shown, and a child process gets the same settings."""

import os
import pathlib

import pytest

from guardfleet.domain.options import JobOptions
from guardfleet.errors import ConfigurationError
from guardfleet.security.encryption import new_secret_key
from guardfleet.settings import Settings, Tuning, load_settings, variable_of
from guardfleet.settings.names import ALLOW_TUNING, GUARDED, PLACES, for_child

EXAMPLES = {"rate_limit": "1/day", "quota": "1/day", "rate_limit_url": "redis://r", "files_url": "/files", "model_revision": "main",
            "webhook_schedule_s": "0,5", "webhook_allow_networks": "127.0.0.0/8"}  # fmt: skip
DATABASE = "postgresql://user:hunter2@db/x"


def test_an_unknown_setting_stops_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDFLEET_BATCH_TOKEN", "5")
    with pytest.raises(ConfigurationError, match="unknown setting GUARDFLEET_BATCH_TOKEN"):
        load_settings()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("ENGINE__BATCH_TOKENS", "-5", r"GUARDFLEET_ENGINE__BATCH_TOKENS = '-5': Input should be greater than or equal to 0"),
        ("ENGINE__DEVICE", "gpu", r"GUARDFLEET_ENGINE__DEVICE = 'gpu'"),
        ("ENGINE__DTYPE", "int4", r"'auto', 'float32'"),
        ("API__QUOTA", "abc", r"GUARDFLEET_API__QUOTA = 'abc': this is not a valid rate limit; write it as 600/minute"),
        ("BROKER_URL", "redis://u:hunter2@h/x", r"^GUARDFLEET_BROKER_URL: the path of a redis:// URL is the number of a database"),
        ("BROKER_URL", "redis://u:hunter2@h/1?bogus=hunter2", r"^GUARDFLEET_BROKER_URL: a redis:// URL has a parameter that is"),
        ("BROKER_URL", "rediss://h/1?ssl_cert_reqs=none&x", r"^GUARDFLEET_BROKER_URL: a rediss:// URL .*: ssl_cert_reqs, "),
        ("BROKER_URL", "redis+socket://", r"^GUARDFLEET_BROKER_URL: a redis\+socket:// URL needs the path"),
        ("BROKER_URL", "kafka://x", r"^GUARDFLEET_BROKER_URL has the scheme 'kafka'; allowed: amqp"),
        ("DATABASE_URL", DATABASE, r"^GUARDFLEET_SECRET_KEY is needed with a database"),
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
        ("API__QUOTA", "", ""),
        ("API__QUOTA", "10 per 2 hours", "10 per 2 hours"),
        ("API__RATE_LIMIT", "600/minute", "600/minute"),
        ("WEBHOOKS__ALLOW_NETWORKS", "127.0.0.0/8", ("127.0.0.0/8",)),
        ("WEBHOOKS__ALLOW_NETWORKS", " 10.0.0.0/8 , fc00::/7,", ("10.0.0.0/8", "fc00::/7")),
        ("WEBHOOKS__ALLOW_NETWORKS", '["10.0.0.0/8"]', ("10.0.0.0/8",)),
        ("WEBHOOKS__ALLOW_NETWORKS", "", ()),
        ("WEBHOOKS__SCHEDULE_S", "0,5", (0.0, 5.0)),
        ("WEBHOOKS__SCHEDULE_S", "[0, 1.5]", (0.0, 1.5)),
    ],
)
def test_a_list_is_taken_with_commas_between(
    monkeypatch: pytest.MonkeyPatch, key: str, value: str, taken: tuple[object, ...]
) -> None:
    monkeypatch.setenv(f"GUARDFLEET_{key}", value)
    group, leaf = key.lower().split("__")
    assert getattr(getattr(load_settings(), group), leaf) == taken


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "WEBHOOKS__ALLOW_NETWORKS",
            "10.0.0.0/8,nonsense",
            r"^GUARDFLEET_WEBHOOKS__ALLOW_NETWORKS, item 2 = 'nonsense': .*write networks as",
        ),
        ("WEBHOOKS__ALLOW_NETWORKS", "10.0.0.1/8", r"host bits set; write networks as"),
        ("WEBHOOKS__ALLOW_NETWORKS", "[1,", r"^GUARDFLEET_WEBHOOKS__ALLOW_NETWORKS = '\[1,': "),
        ("WEBHOOKS__SCHEDULE_S", "0,soon", r"^GUARDFLEET_WEBHOOKS__SCHEDULE_S, item 2 = 'soon': Input should be a valid number"),
        ("WEBHOOKS__SCHEDULE_S", "0,nan", r"^GUARDFLEET_WEBHOOKS__SCHEDULE_S, item 2 = "),
        ("WEBHOOKS__SCHEDULE_S", "0,-1", r"^GUARDFLEET_WEBHOOKS__SCHEDULE_S, item 2 = '-1': "),
        ("WEBHOOKS__SCHEDULE_S", "", r"^GUARDFLEET_WEBHOOKS__SCHEDULE_S = "),
        ("DATABASE_URL", "mysql://u:hunter2@h/d", r"^GUARDFLEET_DATABASE_URL: the scheme is 'mysql'; allowed: postgresql"),
        ("DATABASE_URL", "postgresql://u:hunter2@h:port/d", r"^GUARDFLEET_DATABASE_URL: this is not a valid URL; check the port"),
        ("DATABASE_URL", "postgresql://u:hunter2@a:5432,b:99999/d", r"^GUARDFLEET_DATABASE_URL: this is not a valid URL; check"),
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


@pytest.mark.parametrize("name", [name for name in PLACES if name not in GUARDED])
def test_an_old_name_is_read_where_it_belongs_now(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    group, leaf = PLACES[name]
    field = getattr(Settings(), group).__class__.model_fields[leaf]
    value = EXAMPLES.get(name) or str(field.get_default())
    monkeypatch.setenv(f"GUARDFLEET_{name.upper()}", value)
    found = load_settings()
    assert found.renamed == (name,)
    inside = getattr(found, group)
    assert leaf in inside.model_fields_set
    assert variable_of(name) == f"GUARDFLEET_{group}__{leaf}".upper()
    monkeypatch.setenv(variable_of(name), value)
    monkeypatch.setenv(ALLOW_TUNING, "1")
    with pytest.raises(ConfigurationError, match=f"is the old name of {variable_of(name)}: set only one of them"):
        load_settings()


@pytest.mark.parametrize(
    "variables",
    [
        {"GUARDFLEET_TUNING": '{"engine": "instant"}'},
        {"GUARDFLEET_TUNING__ENGINE": "instant"},
        {"GUARDFLEET_TUNING__LEASE_S": "3"},
    ],
)
def test_no_single_variable_reaches_the_engine_that_judges_nothing(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigurationError, match=r"for tests and load runs only: set GUARDFLEET_ALLOW_TUNING=1 too"):
        load_settings()
    monkeypatch.setenv(ALLOW_TUNING, "1")
    assert load_settings().tuning != Tuning()


@pytest.mark.parametrize("name", GUARDED)
def test_the_old_name_of_that_engine_reaches_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"GUARDFLEET_{name.upper()}", "instant" if name == "engine" else "1")
    monkeypatch.setenv(ALLOW_TUNING, "1")
    with pytest.raises(ConfigurationError, match="is no longer a setting: remove it"):
        load_settings()


def test_a_wrong_value_under_an_old_name_is_named_by_its_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDFLEET_BATCH_TOKENS", "-1")
    with pytest.raises(ConfigurationError, match="GUARDFLEET_ENGINE__BATCH_TOKENS = '-1'"):
        load_settings()


def test_a_child_gets_no_old_name_of_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"PATH": "/bin", "GUARDFLEET_MODEL": "demo", "GUARDFLEET_LEASE_S": "5", "GUARDFLEET_PURGE_HOURS": "1"}
    for name, value in (environ | {ALLOW_TUNING: "1"}).items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    child = for_child(os.environ, settings.as_environment())
    for name in environ:
        monkeypatch.delenv(name)
    for name, value in child.items():
        monkeypatch.setenv(name, value)
    assert load_settings().model_dump() == settings.model_dump()
    assert for_child(environ, {"GUARDFLEET_ENGINE__MODEL": "other"}) == {
        "PATH": "/bin",
        "GUARDFLEET_LEASE_S": "5",
        "GUARDFLEET_PURGE_HOURS": "1",
        "GUARDFLEET_ENGINE__MODEL": "other",
    }


def test_an_old_option_s_warning_points_at_whoever_uses_it() -> None:
    with pytest.warns(DeprecationWarning, match="strict is deprecated") as caught:
        JobOptions(strict=True)  # type: ignore[call-arg]
    assert caught[0].filename == __file__
