"""Output to a terminal, a pipe and a full disk: names as they are, no control sequences, one sentence, no traceback."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from guardfleet.cli.output import printable
from guardfleet.client.direct import DirectClient
from guardfleet.domain.options import JobOptions
from guardfleet.security.encryption import new_secret_key
from guardfleet.settings import Settings, variable_of
from guardfleet.store.postgres.database import Database
from tests.services.commands import environment, said
from tests.services.fixtures import with_broker
from tests.services.patience import patience

CLI = pathlib.Path(__file__).parents[2] / "guardfleet" / "cli"
NAME = "evil[/b] [x] :smile: \x1b[31m\u202e \u6587 [bold]"
SHOWN = "evil[/b] [x] :smile: \\x1b[31m\\u202e \u6587 [bold]"


@with_broker("redis")
def test_a_clients_name_is_shown_as_it_is_on_stdout(settings: Settings, db: Database, tmp_path: pathlib.Path) -> None:
    producer = DirectClient.connect(settings)
    job = producer.submit(["x"], JobOptions(name=NAME)).job
    producer.db.close()
    for told in (said(settings, "jobs"), said(settings, "jobs", "--name", "[/b]")):
        assert told.returncode == 0, told.stderr
        assert SHOWN in told.stdout
        assert job.label in told.stdout
    assert said(settings, "keys", "create", NAME).returncode == 0
    assert SHOWN in said(settings, "keys", "list").stdout
    shown = said(settings, "status", job.label)
    assert shown.stdout.startswith(f"{job.label}: running")
    assert shown.stderr == ""
    assert said(settings, "results", job.label, "-o", str(tmp_path / "v[b].jsonl")).stderr.endswith("v[b].jsonl\n")


def test_doctor_shows_a_folder_as_it_is_called(tmp_path: pathlib.Path) -> None:
    told = said(tmp_path / "data[/b]", "doctor", engine="instant")
    assert f"ok  data folder: {tmp_path}/data[/b]\n" in told.stdout, told.stderr
    assert "\x1b" not in said(tmp_path, "jobs", "--state", "\x1b[31m").stderr


def test_nothing_goes_to_the_terminal_but_by_its_module() -> None:
    other = re.compile(r"rich\.markup|from_markup|markup=True|\[/?(bold|red|green|yellow)\]|Console\(|console\.(print|status)")
    found = [path.name for path in CLI.rglob("*.py") if other.search(path.read_text())]
    assert found == ["terminal.py"]


def test_only_what_is_obeyed_is_spelled_out() -> None:
    plain = "caf\u00e9 \u6587\u5b57\u3000\U0001f468\u200d\U0001f469 \u0645\u06cc\u200c\u062e\nsecond"
    assert printable(plain) == plain
    assert printable("\x07\x9b\r\ud800\u2066", line_breaks=False) == "\\x07\\x9b\\r\\ud800\\u2066"


@pytest.mark.parametrize(
    "url",
    ["po:s@ec@ret@127.0.0.1:1/x", "po:s/ec@ret@127.0.0.1/x", "po:s@ec/ret@127.0.0.1/x", "po:ec#ret@h/x", "po:5?ret@h/x"],
)
@pytest.mark.parametrize(
    ("name", "scheme"),
    [("database_url", "postgresql"), ("broker_url", "amqp"), ("broker_url", "redis"), ("rate_limit_url", "redis")],
)
def test_no_part_of_a_password_is_shown(tmp_path: pathlib.Path, name: str, scheme: str, url: str) -> None:
    told = said(tmp_path, "jobs", **{name: f"{scheme}://{url}", "secret_key": new_secret_key()})
    assert told.returncode == 2
    assert f"{variable_of(name)}: this is not a valid URL; check the port, and percent-encode special characters" in told.stderr
    assert not any(part in told.stdout + told.stderr for part in ("ec@", "ret", "s/ec"))


def test_a_mistyped_option_is_not_answered_with_an_old_name(tmp_path: pathlib.Path) -> None:
    told = said(tmp_path, "submit", "--sur", "1", "x").stderr
    assert told.startswith("guardfleet: No such option: --sur")
    assert "--sure" not in told
    assert "Possible options: --metadata" in said(tmp_path, "submit", "--metadat", "1", "x").stderr


def test_a_short_command_says_that_a_setting_has_its_old_name(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDFLEET_WEBHOOK_TIMEOUT_S", "3")
    first, second = said(tmp_path, "jobs").stderr.splitlines()
    assert first.startswith("GUARDFLEET_WEBHOOK_TIMEOUT_S is the old name of GUARDFLEET_WEBHOOKS__TIMEOUT_S")
    assert "there is no database yet" in second


@pytest.mark.parametrize(
    "url",
    [
        "localhost:9",
        "http://",
        "ftp://localhost",
        "//localhost",
        "http://[::1",
        "http://h:0",
        "http://h:99999",
        "http://a b",
        "http://..",
        "http://h/?q=1",
    ],
)
def test_the_url_of_an_api_has_a_scheme_and_a_host(tmp_path: pathlib.Path, url: str) -> None:
    told = said(tmp_path, "jobs", "--url", url, api_key="gf_x")
    assert (told.returncode, told.stderr.startswith("guardfleet: the URL of the API cannot be used")) == (2, True)


def test_a_database_that_was_not_migrated_and_a_key_that_is_none_say_what_to_do(
    tmp_path: pathlib.Path, empty_database_url: str
) -> None:
    told = said(tmp_path, "jobs", database_url=empty_database_url, secret_key=new_secret_key())
    assert told.returncode == 2
    assert "run `guardfleet db upgrade`" in told.stderr
    odd = said(tmp_path, "jobs", secret_key="abc")
    assert odd.returncode == 2
    assert "make a new one with `guardfleet keys secret`" in odd.stderr


def run(stdout: int, *args: str, of: pathlib.Path | Settings) -> subprocess.CompletedProcess[str]:
    call, env = [sys.executable, "-P", "-m", "guardfleet", *args], os.environ | environment(of, {})
    return subprocess.run(call, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=patience(60), check=False)


@with_broker("redis")
def test_a_full_or_closed_standard_output_is_one_sentence_and_a_pipe_that_ends_none(
    settings: Settings, db: Database, tmp_path: pathlib.Path
) -> None:
    producer = DirectClient.connect(settings)
    producer.submit(["x"])
    producer.db.close()
    with pathlib.Path("/dev/full").open("wb") as full:
        for of, args in ((tmp_path, ("version",)), (settings, ("jobs", "--json")), (settings, ("jobs",))):
            told = run(full.fileno(), *args, of=of)
            assert (told.returncode, told.stderr) == (
                2,
                "guardfleet: cannot write to standard output: No space left on device.\n",
            )
    hear, say = os.pipe()
    os.close(hear)
    gone = run(say, "jobs", "--json", of=settings)
    os.close(say)
    assert (gone.returncode, gone.stderr) == (141, "")
    closed = subprocess.run(
        ["sh", "-c", '"$0" -P -m guardfleet version >&-', sys.executable], capture_output=True, text=True, check=False
    )
    assert (closed.returncode, closed.stderr) == (2, "guardfleet: cannot write to standard output: Bad file descriptor.\n")


@pytest.mark.parametrize("fmt", ["jsonl", "csv"])
@with_broker("redis")
def test_so_is_one_that_fills_under_an_export(settings: Settings, db: Database, fmt: str) -> None:
    producer = DirectClient.connect(settings)
    job = producer.submit([{"id": i} for i in range(3)] + ["x"]).job
    producer.db.close()
    args = ("--refused",) if fmt == "jsonl" else ("--format", fmt)
    with pathlib.Path("/dev/full").open("wb") as full:
        told = run(full.fileno(), "results", job.label, *args, of=settings)
    assert (told.returncode, told.stderr.count("\n")) == (2, 1), told.stderr
