"""Clients that others wrote for Perspective, unchanged but for the address: their calls work, and they understand refusals."""

import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from guardfleet.security.encryption import Keyring
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from tests.contract.programs import NODE, install, printed
from tests.services.fixtures import fleet_settings
from tests.services.fleet import fleet
from tests.services.served import served

HERE = pathlib.Path(__file__).parent / "perspective"
CLIENTS = {
    "perspective.py": "0.3.4",
    "perspective": "1.0.3",
    "PyPerspective": "1.0.4",
    "PySpective": "0.0.2",
    "perspectiveapi": "1.1.0",
}
UNSAFE = 0.9


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with a folder of each client, and one of what they share."""
    folder = tmp_path_factory.mktemp("perspective")
    install(folder / "shared", "-r", str(HERE / "requirements.txt"))
    for name, version in CLIENTS.items():
        install(folder / name, f"{name}=={version}")
    return folder


@pytest.fixture
def at(database_url: str, rabbitmq: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path) -> Iterator[dict[str, str]]:
    """What a client is told: an API with a worker, a key, and a text that is unsafe."""
    settings = fleet_settings(database_url, rabbitmq, tmp_path)
    with fleet(settings, tmp_path, ("worker",)), served(settings) as url:
        yield {"BASE": url, "KEY": keys.create(db, keyring, name="k"), "TEXT": "you [[unsafe]] one"}


@pytest.fixture
def asks(installed: pathlib.Path, at: dict[str, str]) -> Any:
    """Runs the flow of a client in Python."""

    def ask(client: str) -> Any:
        paths = [str(installed / "shared"), *([str(installed / client)] if client in CLIENTS else [])]
        return json.loads(
            printed([sys.executable, str(HERE / "flow.py"), client], HERE, at | {"PYTHONPATH": os.pathsep.join(paths)})
        )

    return ask


def test_clients_of_perspective_understand_every_answer(asks: Any) -> None:
    google = asks("google-api-python-client")
    assert google["short"] == google["long"]
    assert google["short"].keys() == {"TOXICITY"}
    assert google["short"]["TOXICITY"] > UNSAFE
    assert (google["token"], google["refused"]) == ("t", [400, "ATTRIBUTE_NOT_SUPPORTED"])
    wrapped = asks("perspective.py")
    assert (min(wrapped["scores"].values()) > UNSAFE, wrapped["wrong_key"]) == (True, "InvalidToken")
    whole = asks("perspective")
    assert (whole["scores"]["TOXICITY"], whole["token"]) == (whole["whole"]["TOXICITY"], "t")
    assert whole["scores"].keys() == {"TOXICITY", "INSULT"}
    checked = asks("PyPerspective")
    assert (min(checked["scores"].values()) > UNSAFE, checked["languages"], checked["wrong_key"]) == (
        True,
        ["und"],
        "InvalidAuthKey",
    )
    every = asks("PySpective")
    assert every["scores"].keys() == {"TOXICITY", "SEVERE_TOXICITY", "IDENTITY_ATTACK", "INSULT", "THREAT", "SEXUALLY_EXPLICIT"}
    assert every["suggested"] == "Successed"  # its own word
    some = asks("perspectiveapi")
    assert (some["scores"]["TOXICITY"] > UNSAFE, some["flirtation"], some["async"]) == (True, None, True)


def test_the_client_in_node_understands_every_answer(node_folder: pathlib.Path, at: dict[str, str]) -> None:
    found = json.loads(printed([NODE, "perspective.mjs"], node_folder, at))
    assert found["one"] == found["whole"]
    assert found["one"].keys() == {"TOXICITY"}
    assert found["some"].keys() == {"TOXICITY", "THREAT"}
    assert min(found["some"].values()) > UNSAFE
    assert found["refused"][0] == 400
    assert "attribute 'NONE' matches none" in found["refused"][1]
    assert found["wrongKey"] == [400, "API_KEY_INVALID"]


def test_what_forums_send_is_understood(at: dict[str, str]) -> None:
    """The requests of Coral (a comment page) and of Discourse's plugin, in the members and the order that they send."""
    text, place = at["TEXT"], f"{at['BASE']}/v1alpha1/comments"
    with httpx2.Client(params={"key": at["KEY"]}, timeout=60) as forum:
        coral = {
            "comment": {"text": text},
            "doNotStore": False,
            "requestedAttributes": {"SEVERE_TOXICITY": {}},
            "languages": ["en"],
        }
        scored = forum.post(f"{place}:analyze", json=coral)
        assert (scored.status_code, scored.json()["languages"]) == (200, ["en"])
        assert 0 <= scored.json()["attributeScores"]["SEVERE_TOXICITY"]["summaryScore"]["value"] <= 1
        decided = {
            "comment": {"text": text},
            "context": {"entries": [{"text": json.dumps({"url": "https://example.com/a?commentID=1", "Coral_comment_id": "1"})}]},
            "attributeScores": {"SEVERE_TOXICITY": {"summaryScore": {"value": 1}}},
            "languages": ["en"],
            "communityId": "Coral:https://example.com",
            "clientToken": "comment:1",
        }
        suggested = forum.post(f"{place}:suggestscore", json=decided)
        assert (suggested.status_code, suggested.json()["clientToken"]) == (200, "comment:1")
        assert suggested.headers["guardfleet-label"] == "stored"
        for attribute in ("TOXICITY", "SEVERE_TOXICITY"):
            discourse = {
                "comment": {"text": f"{text} " * 800},
                "doNotStore": True,
                "sessionId": "https://example.com_anonymous",
                "requestedAttributes": {attribute: {"scoreType": "PROBABILITY"}},
            }
            headers = {"accept": "*/*", "user-agent": "Discourse/3.0.0"}
            found = forum.post(f"{place}:analyze", json=discourse, headers=headers).json()["attributeScores"]
            assert [(name, "value" in one["summaryScore"]) for name, one in found.items()] == [(attribute, True)]
