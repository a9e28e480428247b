"""Models by name: a name that is neither a folder nor on the hub gives one sentence, soon, whatever the hub does."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from guardfleet.cli import UNUSABLE
from guardfleet.errors import ConfigurationError
from tests.services.patience import patience
from worker.engine.model import hub
from worker.engine.model.loading import load
from worker.engine.model.model_files import folder_of

ROOT = pathlib.Path(__file__).parents[2]
NAME = "Some/Guard-0.6B"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NO_SUCH_FILE = (404, {"X-Error-Code": "EntryNotFound"})
CLOSED = "http://127.0.0.1:9"


def at(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    # transformers keeps the endpoint of its first request: that of another test, or the hub's own.
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """An empty one."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    at(monkeypatch, CLOSED)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, dict[str, str]]]]:
    """A hub whose next answers are what the list says; it has no other files."""
    answers: list[tuple[int, dict[str, str]]] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            status, headers = answers.pop(0) if answers else NO_SUCH_FILE
            self.send_response(status)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:  # type: ignore[override]
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        at(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        yield answers
        server.shutdown()
        thread.join()


def cached(cache: pathlib.Path, files: pathlib.Path | None = None) -> None:
    """As the hub's library leaves a model behind: all of its files, or the one that is asked for first."""
    model = cache / f"models--{NAME.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    if files is not None:
        shutil.copytree(files, model / "snapshots" / COMMIT)
        return
    (model / "snapshots" / COMMIT).mkdir(parents=True)
    (model / "snapshots" / COMMIT / "config.json").write_text("{}")


def test_a_hub_that_does_not_answer_is_said_with_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"no folder 'Some/Guard-0.6B'.*does not answer.*give the model's folder") as said:
        hub.is_only_cached(NAME)
    assert "HF_ENDPOINT" in str(said.value)
    assert f"`hf download {NAME}`" in str(said.value)


def test_a_hub_that_takes_the_connection_and_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PATIENCE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ConfigurationError, match="does not answer"):
            hub.is_only_cached(NAME)
    assert hub.ANSWER_S < 10
    assert hub.PATIENCE_S < 10


def test_offline_is_said_by_the_name_of_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigurationError, match="HF_HUB_OFFLINE is set"):
        hub.is_only_cached(NAME)


def test_without_the_hub_a_cached_model_serves(cache: pathlib.Path) -> None:
    cached(cache)
    assert hub.is_only_cached(NAME)
    with pytest.raises(ConfigurationError, match="no copy of such a model"):
        hub.is_only_cached(NAME, "another")


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_model_from_the_cache_judges_and_its_revision_is_its_commit(cache: pathlib.Path, revision: str | None) -> None:
    cached(cache, ROOT / "models" / "demo")
    found = load(NAME, revision=revision).identity
    assert (found.name, found.revision) == (NAME, COMMIT)


def test_a_hub_in_trouble_is_like_one_that_is_away(endpoint: list[tuple[int, dict[str, str]]], cache: pathlib.Path) -> None:
    endpoint += [(503, {}), (503, {})]
    with pytest.raises(ConfigurationError, match="does not answer"):
        hub.is_only_cached(NAME)
    cached(cache)
    assert hub.is_only_cached(NAME)


def test_a_model_that_the_hub_has_comes_from_the_hub(endpoint: list[tuple[int, dict[str, str]]]) -> None:
    endpoint.append((200, {"X-Repo-Commit": COMMIT, "ETag": '"1"'}))
    assert not hub.is_only_cached(NAME)


@pytest.mark.parametrize("is_beside_weights", [True, False])
def test_an_adapter_on_the_hub_is_refused_by_name(
    endpoint: list[tuple[int, dict[str, str]]], cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch, is_beside_weights: bool
) -> None:
    there = (200, {"X-Repo-Commit": COMMIT, "ETag": '"1"'})
    endpoint += [there if is_beside_weights else NO_SUCH_FILE, there]
    with pytest.raises(ConfigurationError, match=r"on the hub holds an adapter \(adapter_config.json\): merge it"):
        hub.is_only_cached(NAME)
    cached(cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.is_only_cached(NAME)
    next(cache.glob("*/snapshots/*/config.json")).with_name("adapter_config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="holds an adapter"):
        hub.is_only_cached(NAME)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "RepoNotFound", "no folder 'Some/Guard-0.6B', and no such model on the hub: check the spelling"),
        (401, "RepoNotFound", "no such model on the hub"),
        (403, "GatedRepo", "set HF_TOKEN"),
        (404, "RevisionNotFound", "no revision 'v9'"),
        (404, "EntryNotFound", "no config.json"),
    ],
)
def test_what_the_hub_says_is_told_with_its_fix(
    endpoint: list[tuple[int, dict[str, str]]], cache: pathlib.Path, status: int, code: str, said: str
) -> None:
    cached(cache)
    endpoint.append((status, {"X-Error-Code": code}))
    with pytest.raises(ConfigurationError, match=said):
        hub.is_only_cached(NAME, "v9")


@pytest.mark.parametrize("name", ["models/guard/v2", "guard/", "my guard", "~/guard", "./guard", "/nowhere/guard", "-x"])
def test_what_cannot_be_a_hub_name_is_a_folder_that_does_not_exist(name: str) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        folder_of(name)


def test_a_mistyped_folder_is_told_the_one_beside_it(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "guard").mkdir(parents=True)
    assert folder_of("models/gaurd") is None  # no model beside it
    (tmp_path / "models" / "guard" / "config.json").write_text("{}")
    for name in ("models/gaurd", "models/guard-", str(tmp_path / "models" / "gaurd")):
        with pytest.raises(ConfigurationError, match=r"does not exist; .*models/guard does\."):
            folder_of(name)
    with pytest.raises(ConfigurationError, match=r"is a file: give its folder\."):
        folder_of("models/guard/config.json")
    assert folder_of("Qwen/Qwen3Guard-Gen-0.6B") is None


def test_scan_says_it_before_it_starts_anything(tmp_path: pathlib.Path) -> None:
    texts = tmp_path / "in.jsonl"
    texts.write_text('{"text": "hello"}\n')
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GUARDFLEET_")}
    environ |= {"HF_ENDPOINT": CLOSED, "HF_HOME": str(tmp_path / "hf"), "GUARDFLEET_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-m", "guardfleet", "scan", str(texts), "--model", NAME],
        check=False, capture_output=True, text=True, cwd=tmp_path, env=environ, timeout=patience(60),
    )  # fmt: skip
    assert done.returncode == UNUSABLE
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"guardfleet: there is no folder '{NAME}'")
    assert not (tmp_path / "data" / "postgres").exists()
