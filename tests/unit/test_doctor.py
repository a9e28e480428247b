"""What doctor finds without a server and without a model, and that nothing stops it."""

import json
import pathlib
import re
import resource
import socket
import threading
from dataclasses import replace
from importlib import metadata

import fsspec  # type: ignore[import-untyped]
import pytest
from packaging.requirements import Requirement
from pydantic import SecretStr

from guardfleet.cli import DONE, UNUSABLE
from guardfleet.cli.commands import doctor
from guardfleet.cli.doctor import api, database, machine, report, versions
from guardfleet.cli.doctor.environment import Environment
from guardfleet.cli.doctor.examination import Examination, looked
from guardfleet.cli.doctor.findings import Caution, Check, Finding, Pitfall, Status, TroubleError
from guardfleet.errors import ConfigurationError
from guardfleet.settings import Settings, load_settings
from guardfleet.telemetry.health import Health
from guardfleet.telemetry.metrics import registry_of
from guardfleet.telemetry.probes import ProbeServer
from tests.services.commands import said

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "doctor.md"
WELL = Check("well", lambda: "well", "nothing")


def raising(error: Exception) -> Check:
    def look() -> str:
        raise error

    return Check("ill", look, "advice")


def seen(settings: Settings, name: str) -> Finding:
    """The finding of one check of the machine, or of what the API uses there."""
    return next(looked(check) for check in (*machine.checks(settings), *api.checks(settings)) if check.name == name)


@pytest.fixture
def settings(tmp_path: pathlib.Path) -> Settings:
    return load_settings(data_dir=tmp_path / "data", engine="instant", api_port=0)


def test_no_check_stops_another_whatever_it_raises_or_waits_for() -> None:
    never = threading.Event()
    waits = Check("waits", lambda: str(never.wait()), "advice")
    imports = replace(waits, slow="importing")
    chains = [[waits, WELL], [imports], [raising(ValueError("odd\nsecond line"))], [raising(ConfigurationError("wrong")), WELL]]
    examination = Examination(chains)
    found = list(examination.findings(within_s=0.2))
    assert not examination.is_over
    never.set()
    assert [(one.name, one.status) for one in found] == [
        ("waits", Status.FAILED), ("waits", Status.FAILED), ("ill", Status.FAILED), ("ill", Status.FAILED), ("well", Status.OK),
    ]  # fmt: skip
    assert found[0].said == "no answer within 0.2 s"
    assert found[1].said == "importing took longer than 0.2 s"
    assert "--within" in (found[0].fix or "")
    assert found[2].said == "the check itself failed: ValueError: odd"
    assert (found[3].said, found[3].fix) == ("wrong", "advice")


def test_a_check_without_what_it_needs_is_left_out_and_so_is_what_needs_that() -> None:
    chain = [
        raising(ConfigurationError("wrong")),
        *(Check(a, lambda: "x", "", after=b) for a, b in (("b", ("ill",)), ("c", ("well", "b")))),
    ]
    found = list(Examination([[*chain, WELL]]).findings(within_s=60.0))
    assert [one.name for one in found] == ["ill", "well"]


def test_an_error_s_own_advice_goes_before_the_check_s() -> None:
    assert looked(raising(TroubleError("wrong", "better"))).fix == "better"
    assert looked(Check("a", lambda: Caution("so"), "advice")).fix == "advice"
    assert looked(Check("a", lambda: Caution("so", "better"), "advice")).fix == "better"
    assert looked(WELL).fix is None


def test_without_any_service_it_examines_the_machine_and_says_so_in_json(tmp_path: pathlib.Path) -> None:
    done = said(tmp_path, "doctor", "--json", engine="instant", api_port="0")
    assert done.returncode == DONE, done.stdout
    told = json.loads(done.stdout)
    assert told["status"] in ("ok", "warning")
    assert {"settings", "packages", "versions", "disk", "ports", "open files", "embedded servers"} <= {
        check["name"] for check in told["checks"]
    }
    assert all(set(check) == {"name", "status", "said", "fix", "pitfall"} for check in told["checks"])
    assert all((check["fix"] is None) == (check["status"] == "ok") for check in told["checks"])


def test_all_wrong_settings_are_reported_and_the_rest_is_examined(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "GUARDFLEET_ENGNE__MODEL": "x",
        "GUARDFLEET_ODD": "1",
        "GUARDFLEET_WORKER__CONCURRENCY": "999",
        "GUARDFLEET_API__PORT": "http",
        "GUARDFLEET_WINDOW_TOKENS": "1",  # an old name
        "GUARDFLEET_BROKER_URL": "sqs://user:canary@queue",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    done = said(tmp_path, "doctor", "--json", engine="instant")
    assert done.returncode == UNUSABLE
    first, *others = json.loads(done.stdout)["checks"]
    assert first["status"] == "failed"
    for name in (*(wrong.keys() - {"GUARDFLEET_WINDOW_TOKENS"}), "GUARDFLEET_ENGINE__WINDOW_TOKENS"):
        assert name in first["said"], name
    assert "GUARDFLEET_ENGNE__MODEL is perhaps GUARDFLEET_ENGINE__MODEL." in first["said"]
    assert "canary" not in done.stdout + done.stderr
    assert {"disk", "ports"} <= {check["name"] for check in others if check["status"] == "ok"}


def test_a_database_without_a_key_is_examined_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDFLEET_DATABASE_URL", "postgresql://u@127.0.0.1:1/x")
    environment = Environment()
    assert "GUARDFLEET_SECRET_KEY is needed" in " ".join(environment.wrong)
    assert environment.settings.required("database_url") == "postgresql://u@127.0.0.1:1/x"


def test_what_cannot_be_parsed_is_reported_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDFLEET_TUNING", "{")
    monkeypatch.setenv("GUARDFLEET_ALLOW_TUNING", "1")
    assert "tuning" in " ".join(Environment().wrong)


def test_a_taken_port_is_named_and_so_is_every_other(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [taken.getsockname()[1] for taken in (one, other)]
        found = seen(settings.but(api_port=ports[0], metrics_port=ports[1]), "ports")
    assert (found.status, found.pitfall) == (Status.FAILED, Pitfall.PORT)
    assert all(f"port {port} at 127.0.0.1 is in use: set GUARDFLEET_" in found.said for port in ports)


def test_the_ports_of_a_fleet_that_runs_are_its_own(settings: Settings) -> None:
    health = Health()
    server = ProbeServer("127.0.0.1", 0, health=health, registry=registry_of("dispatcher"))
    server.start()
    try:
        found = seen(settings.but(metrics_port=server.port), "ports")
        with socket.create_server(("127.0.0.1", 0)) as other:  # accepts, and never answers
            strange = seen(settings.but(metrics_port=server.port, api_port=other.getsockname()[1]), "ports")
    finally:
        server.stop()
    assert (found.status, strange.status) == (Status.OK, Status.FAILED)
    assert f"{server.port} at 127.0.0.1 is a guardfleet process's, which is degraded" in found.said
    assert str(server.port) not in strange.said


def test_an_object_store_is_asked_what_is_there(settings: Settings) -> None:
    fsspec.filesystem("memory").pipe("/bucket/prefix/x", b"x")
    cases = {
        "memory://bucket/prefix": (Status.OK, "memory:// answers"),
        "memory://no/such": (Status.WARNING, "the first upload fails if the bucket does not exist"),
        "nosuch://bucket": (Status.FAILED, "nosuch:// cannot be used: Protocol not known: nosuch"),
    }
    for url, (status, words) in cases.items():
        found = seen(settings.but(files_url=url), "uploads")
        assert (found.status, words in found.said) == (status, True), found


def test_shared_counts_without_their_server_are_a_failure(settings: Settings) -> None:
    found = seen(settings.but(rate_limit_url=SecretStr("redis://user:canary@127.0.0.1:1/0")), "rate limits")
    assert (found.status, found.pitfall, "canary" in found.said) == (Status.FAILED, Pitfall.PORT, False)


def test_a_full_disk_is_named_for_data_and_for_uploads(
    settings: Settings, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (str(tmp_path / "uploads"), (tmp_path / "uploads").as_uri()):
        uploads = settings.but(files_url=url)
        assert seen(uploads, "uploads").status is Status.OK
    (tmp_path / "uploads").write_text("a file")
    assert "set GUARDFLEET_API__FILES_URL to a folder you own" in seen(uploads, "uploads").said
    (tmp_path / "uploads").unlink()
    monkeypatch.setattr(machine, "LEAST_DISK_BYTES", 1 << 62)
    for name in ("disk", "uploads"):
        found = seen(uploads, name)
        assert found.status is Status.FAILED
        assert f"MiB are free at {tmp_path}" in found.said


def test_a_low_limit_of_open_files_is_a_warning_and_a_very_low_one_a_failure(settings: Settings) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = {}
    try:
        for limit in (1024, 200):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            found[limit] = seen(settings, "open files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (found[1024].status, found[200].status) == (Status.WARNING, Status.FAILED)
    assert "at most 1,024 may be open at once; an API with 1,000 connections needs 1,128" in found[1024].said
    assert "ulimit -n" in (found[200].fix or "")


def test_a_library_of_an_unsupported_version_is_named_with_what_to_install(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in (("transformers", "4.51.0"), ("kombu", "5.5.0")):
        (folder := tmp_path / f"{name}-{version}.dist-info").mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (check,) = versions.checks()
    assert looked(check).status is Status.OK
    monkeypatch.syspath_prepend(tmp_path)
    assert metadata.version("kombu") == "5.5.0"
    found = looked(check)
    assert (found.status, found.pitfall) == (Status.FAILED, Pitfall.VERSIONS)
    assert "transformers 4.51.0 (needed: <6,>=5.17)" in found.said
    assert "kombu 5.5.0 (needed: ==5.7.0)" in found.said
    assert "'kombu==5.7.0'" in (found.fix or "")


def test_the_docs_name_the_oldest_versions_that_the_installation_demands() -> None:
    oldest = {
        one.name: next(iter(str(part)[2:] for part in one.specifier if str(part).startswith(">=")))
        for one in map(Requirement, metadata.requires("guardfleet") or [])
        if one.name in ("torch", "transformers")
    }
    engine = " ".join((PAGE.with_name("engine.md")).read_text().split())
    assert f"The oldest supported versions are torch {oldest['torch']} and transformers {oldest['transformers']}" in engine


def test_a_clock_that_is_seconds_off_is_a_warning_and_minutes_a_failure() -> None:
    assert isinstance(database.told(0.4, "the database"), str)
    assert isinstance(database.told(-30.0, "the database"), Caution)
    with pytest.raises(TroubleError, match=r"300\.0 s ahead of that of the database"):
        database.told(300.0, "the database")


def test_no_password_and_no_key_is_shown_whoever_says_it() -> None:
    settings = load_settings(
        database_url="postgresql://u:p%40ss-canary@h/x?sslpassword=ssl-canary",
        broker_url="amqp://u:broker-canary@h//",
        secret_key="key-canary",
        rate_limit_url="redis://:limit-canary@h",
        files_url="s3://id:files-canary@bucket",
    )
    secrets = report.secrets_of(settings)
    everything = "p%40ss-canary p@ss-canary ssl-canary broker-canary key-canary limit-canary files-canary"
    hidden = report.without(secrets, Finding("a", Status.FAILED, everything, f"try {everything}"))
    assert "canary" not in hidden.said + (hidden.fix or "")


def test_remapped_signals_are_found(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMAP_SIGTERM", "SIGQUIT")
    assert seen(settings, "shutdown").status is Status.FAILED


def test_every_check_and_every_pitfall_is_in_the_docs() -> None:
    page = PAGE.read_text()
    code = "".join(path.read_text() for path in pathlib.Path(doctor.__file__).parents[1].rglob("*doctor*/*.py"))
    code += pathlib.Path(doctor.__file__).read_text()
    names = set(re.findall(r'Check\(\s*"([^"]+)"', code))
    assert len(names) >= 15
    assert sorted(name for name in names if f"| `{name}` |" not in page) == []
    assert [pitfall for pitfall in Pitfall if f"| {pitfall} |" not in page] == []
