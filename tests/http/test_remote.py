"""The commands with `--url`: jobs are listed and watched, and an empty input is no success, as with a database URL."""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from guardfleet.cli.commands import job_list
from guardfleet.cli.commands import jobs as command
from guardfleet.cli.input_options import opened
from guardfleet.client.direct import DirectClient
from guardfleet.client.http import Client
from guardfleet.client.job import SubmitOptions
from guardfleet.domain.options import JobOptions
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from producer.readers import AS_FOUND
from producer.submit import submit_input
from tests.services.fixtures import SECRET_KEY
from tests.services.served import judging, served
from tests.services.stored import scalar

EMPTY = SubmitOptions(allow_empty=True)


@pytest.fixture
def beside(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path)


@pytest.fixture
def away(beside: Settings, db: Database, keyring: Keyring) -> Iterator[Settings]:
    with served(beside) as url:
        yield load_settings(api_url=url, api_key=keys.create(db, keyring, name="k"), data_dir=beside.data_dir)


def ask(settings: Settings, **more: Any) -> int:
    asked = {"state": None, "name": None, "after": None, "limit": 20, "as_json": True, **more}
    return job_list.listing(settings, **asked)


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return what was printed as JSON. The API in this process logs to the same stream, and may do so in the middle of a line."""
    out, decoder = capsys.readouterr().out, json.JSONDecoder()
    return [decoder.raw_decode(out, found.start())[0] for found in re.finditer(r'\{"job": ', out)]


def test_jobs_are_listed_and_watched_over_http(
    away: Settings, db: Database, keyring: Keyring, capsys: pytest.CaptureFixture[str]
) -> None:
    assert away.api_url is not None
    assert away.api_key is not None
    with Client(away.api_url, away.api_key.get_secret_value()) as producer, judging(db, keyring):
        first, second = producer.submit(["a", "b"]), producer.submit(["c", {"id": "no text"}])
        capsys.readouterr()
        assert [command.watch(away, label) for label in (first.id, second.id.replace("batch_", "job_"))] == [0, 1]
    assert f"{first.id}: completed" in capsys.readouterr().err
    assert ask(away) == 0
    listed = said(capsys)
    assert [(line["job"], line["total"], line["failed"]) for line in listed] == [(second.id, 2, 1), (first.id, 2, 0)]
    ask(away, after=second.id.replace("batch_", "job_"), limit=1)
    assert [line["job"] for line in said(capsys)] == [first.id]
    with pytest.raises(NotFoundError):
        command.watch(away, "job_" + "0" * 32)
    with pytest.raises(RejectedError, match="do not work over HTTP"):
        ask(away, state="running")


@pytest.mark.parametrize(("name", "data"), [("in.jsonl", ""), ("in.jsonl", "\n \n"), ("in.csv", "id,text\n")])
def test_an_empty_input_makes_a_job_only_where_that_is_allowed(
    away: Settings, beside: Settings, db: Database, keyring: Keyring, tmp_path: pathlib.Path, name: str, data: str
) -> None:
    path = tmp_path / name
    path.write_text(data)
    for settings in (beside, away):
        with pytest.raises(RejectedError, match=r"the input has no rows: .* \(use --allow-empty to accept that\)"):
            command.submit(settings, [str(path)], JobOptions(), SubmitOptions(), AS_FOUND, wait=False)
    assert scalar(db, "select count(*) from job") == 0
    assert command.submit(away, [str(path)], JobOptions(), EMPTY, AS_FOUND, wait=False) == 0
    inputs = opened([str(path)], AS_FOUND, max_text_bytes=1 << 20, allow_empty=True)
    assert submit_input(DirectClient(db, keyring, beside), inputs, JobOptions(), EMPTY).job.total == 0
    assert scalar(db, "select count(*) from job where total = 0") == 2
