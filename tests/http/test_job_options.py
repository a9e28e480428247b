"""One model of a job's options: each face offers all of it, and what a face accepts is what the row stores."""

import inspect
import json
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from api.openai.batch import BatchRequest, LineOptions
from api.server import create_app
from guardfleet import AsyncClient, Client, JobOptions
from guardfleet.cli.options import job_options
from guardfleet.client.asynchronous import AsyncDirectClient
from guardfleet.client.direct import DirectClient
from guardfleet.client.job import SubmitOptions
from guardfleet.client.protocol import Calls
from guardfleet.domain.options import COLUMNS, OLD_NAMES
from guardfleet.domain.verdict import Model
from guardfleet.errors import RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys, models
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.stored import scalar

HOOK = "http://127.0.0.1:9/hook"
ASKED: dict[str, Any] = {  # of each option a value that is not its default
    "name": "nightly",
    "interactive": True,
    "all_or_nothing": True,
    "model": "small",
    "escalate_to": "large",
    "confidence_threshold": 0.75,
    "audit_fraction": 0.25,
    "long_texts": "head",
    "detectors": ["guard", "finder"],
    "detector_cascades": ["finder=large-finder@0.75"],
    "priority": 7,
    "use_cache": False,
    "text_retention_hours": 2.5,
    "completion_window": "90m",
    "callback_url": HOOK,
    "metadata": {"team": "a"},
    "webhook_metadata": {"ticket": "7"},
}
OPTIONS = sorted(JobOptions.model_fields)


def test_each_option_has_a_value_here() -> None:
    assert sorted(ASKED) == OPTIONS
    assert all(value != JobOptions.model_fields[name].default for name, value in ASKED.items())


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_is_asked_on_every_face(name: str) -> None:
    assert name in inspect.signature(job_options()).parameters
    assert name in LineOptions.model_fields
    assert name in BatchRequest.model_fields
    assert name in COLUMNS or name == "callback_url"  # of which the table `endpoint` is made


@pytest.fixture
def settings(database_url: str, tmp_path: pathlib.Path, db: Database) -> Settings:
    for name in ("small", "large"):
        models.register(db, Model(name, "r", "p"))
    for name in ("finder", "large-finder"):
        models.register(db, Model("m", "r", "p", detector=name))
    return load_settings(
        database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, webhook_allow_networks=("127.0.0.0/8",)
    )


@pytest.fixture
def over_http(settings: Settings, db: Database, keyring: Keyring) -> Iterator[TestClient]:
    key = keys.create(db, keyring, name="k")
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {key}"}) as client:
        yield client


def row(db: Database) -> dict[str, Any]:
    """The newest job's columns that options set, as JSON has them."""
    columns = ", ".join(f"'{column}', {column}" for column in COLUMNS.values())
    found = scalar(db, f"select json_build_object({columns}, 'window_s', extract(epoch from expires_at - created_at)) from job")
    assert scalar(db, "select url from endpoint") == HOOK
    return dict(found)


def expected() -> dict[str, Any]:
    return {**JobOptions(**ASKED).stored(), "lane": 1, "window_s": 5400.0}


def by_client(settings: Settings, db: Database, keyring: Keyring) -> None:
    DirectClient(db, keyring, settings).submit(["a"], JobOptions(**ASKED))


def by_command(settings: Settings, db: Database, keyring: Keyring) -> None:
    typed = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in ASKED.items()}
    DirectClient(db, keyring, settings).submit(["a"], job_options()(**typed))


@pytest.mark.parametrize("submit", [by_client, by_command])
def test_what_is_asked_directly_is_what_the_row_has(
    submit: Callable[[Settings, Database, Keyring], None], settings: Settings, db: Database, keyring: Keyring
) -> None:
    submit(settings, db, keyring)
    assert row(db) == expected()


def test_what_a_client_asks_over_http_is_what_the_row_has(over_http: TestClient, db: Database) -> None:
    calls = Calls(patience_s=0, clock=lambda: 0.0, rng=lambda: 0.0).submit(["a"], JobOptions(**ASKED), SubmitOptions())
    asked: Any = next(calls)
    content = b"".join(asked.body())
    made = over_http.request(asked.method, asked.path, params=asked.params, headers=asked.headers, content=content)
    assert made.status_code == 200, made.text
    assert row(db) == expected()


def test_what_a_file_is_asked_over_http_is_what_the_row_has(over_http: TestClient, db: Database) -> None:
    line = b'{"custom_id": "a", "method": "POST", "url": "/v1/moderations", "body": {"input": "a"}}'
    file = over_http.post("/v1/files", files={"file": ("a.jsonl", line)}, data={"purpose": "batch"}).json()
    made = over_http.post("/v1/batches", json={"input_file_id": file["id"], "endpoint": "/v1/moderations", **ASKED})
    assert made.status_code == 200, made.text
    assert row(db) == expected()


@pytest.mark.parametrize("old", sorted(OLD_NAMES))
def test_an_old_name_is_taken_with_a_warning_and_never_beside_the_new_one(old: str) -> None:
    new = OLD_NAMES[old]
    with pytest.warns(DeprecationWarning, match=f"{old} is deprecated: use {new}"):
        assert getattr(JobOptions(**{old: ASKED[new]}), new) == ASKED[new]
    with pytest.raises(ValidationError, match="the old name"):
        JobOptions(**{old: ASKED[new], new: ASKED[new]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # over HTTP a header says it
        assert getattr(LineOptions.model_validate({old: ASKED[new]}), new) == ASKED[new]


def test_an_old_flag_is_taken_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    assert job_options()(then="large").escalate_to == "large"
    assert "--then is deprecated and goes with the next version: use --escalate-to" in capsys.readouterr().err
    with pytest.raises(RejectedError, match="give only one of them"):
        job_options()(sure=0.5, confidence_threshold=0.6)


@pytest.mark.parametrize(
    ("typed", "said"),
    [({"priority": 1000}, "-100 to 100"), ({"metadata": "[1]"}, "JSON object"), ({"confidence_threshold": 0}, "0")],
)
def test_a_wrong_value_is_one_sentence(typed: dict[str, Any], said: str) -> None:
    with pytest.raises(RejectedError, match=said):
        job_options()(**typed)


def test_every_client_has_the_same_methods_with_the_same_parameters() -> None:
    clients = (Client, AsyncClient, DirectClient, AsyncDirectClient)
    methods = [
        {
            name: list(inspect.signature(method).parameters.values())
            for name, method in vars(client).items()
            if inspect.isfunction(method) and name[0] != "_"
        }
        for client in clients
    ]
    shared = {name: [(p.name, p.kind, p.default) for p in found] for name, found in methods[0].items()}
    assert {"submit", "submit_rows", "status", "results", "refused", "jobs", "cancel", "pause", "resume", "moderate"} <= set(shared)
    for found in methods[1:]:
        assert {name: [(p.name, p.kind, p.default) for p in found[name]] for name in shared} == shared
