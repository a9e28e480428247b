"""Clients that generators make of the OpenAPI: their types are right, and what they call works."""

import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from api.server import create_app
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from tests.contract.programs import NODE, install, printed
from tests.services.fixtures import SECRET_KEY
from tests.services.served import judging, served

HERE = pathlib.Path(__file__).parent
GENERATOR = "openapi-python-client==0.29.1"
LINES = [{"custom_id": f"r{i}", "method": "POST", "url": "/v1/moderations", "body": {"input": f"text {i}"}} for i in range(3)]
VERDICTS = [[f"r{i}", "unsafe"] for i in range(3)]


@pytest.fixture
def settings(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, moderation_timeout_s=60)


@pytest.fixture
def document(settings: Settings, tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(create_app(settings).openapi()))
    return path


@pytest.fixture
def at(settings: Settings, db: Database, keyring: Keyring) -> Iterator[dict[str, str]]:
    """What a client is told: an API with a worker, a key, and lines of a batch."""
    with served(settings) as url, judging(db, keyring):
        yield {"BASE": url, "KEY": keys.create(db, keyring, name="k"), "LINES": "\n".join(map(json.dumps, LINES))}


def test_a_client_by_openapi_typescript(node_folder: pathlib.Path, document: pathlib.Path, at: dict[str, str]) -> None:
    tools = node_folder / "node_modules" / ".bin"
    printed([str(tools / "openapi-typescript"), str(document), "-o", "generated-api.d.ts"], node_folder)
    strict = ["--strict", "--noUncheckedIndexedAccess", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    printed([str(tools / "tsc"), *strict, "generated.ts"], node_folder)
    found = json.loads(printed([NODE, "generated.js"], node_folder, at))
    counts = {"total": 3, "completed": 3, "failed": 0}
    assert found == {"verdicts": VERDICTS, "status": "completed", "counts": counts, "flagged": True, "unknown": "not_found"}


def test_a_client_by_openapi_python_client(tmp_path: pathlib.Path, document: pathlib.Path, at: dict[str, str]) -> None:
    packages = install(tmp_path / "packages", GENERATOR, with_dependencies=True)
    alone = {"PYTHONPATH": os.pathsep.join([str(packages), str(tmp_path)])}
    generate = [sys.executable, "-m", "openapi_python_client", "generate", "--path", str(document), "--meta", "none"]
    config = HERE / "generated" / "config.yml"
    printed([*generate, "--output-path", str(tmp_path / "made"), "--config", str(config)], tmp_path, alone)
    (tmp_path / "made" / "py.typed").touch()
    flow = HERE / "generated" / "flow.py"
    checks = [sys.executable, "-m", "mypy", "--config-file", os.devnull, "--follow-imports", "silent", "--strict", str(flow)]
    printed(checks, tmp_path, {"MYPYPATH": str(tmp_path)})
    found: dict[str, Any] = json.loads(printed([sys.executable, str(flow)], tmp_path, alone | at))
    assert 0 <= found.pop("score") <= 1
    assert found == {
        "same": True, "verdicts": VERDICTS, "status": "completed", "completed": 3, "flagged": True, "unknown": "not_found",
        "part": [206, 10], "inline": ["inline", 3],
    }  # fmt: skip
