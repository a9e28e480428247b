"""Every process that opens the store reports, at its start, a pooler that loses prepared statements."""

import pathlib
import sys
from collections.abc import Iterator

import pytest

from guardfleet.cli import UNUSABLE, main
from guardfleet.errors import ConfigurationError
from guardfleet.settings import Settings
from guardfleet.store.postgres import pooler
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import fleet_settings
from tests.services.pooler import pooled
from tests.services.proxy import in_front_of

SAID = "the pooler before PostgreSQL loses prepared statements: use PgBouncer 1.22 or newer"


@pytest.fixture
def settings(database_url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """As the environment has them, of a database behind the pooler."""
    with pooled(database_url) as url:
        settings = fleet_settings(url, "redis://127.0.0.1:1", tmp_path)
        for name, value in settings.as_environment().items():
            monkeypatch.setenv(name, value)
        yield settings


@pytest.mark.parametrize(
    "command", [["worker"], ["worker", "--webhooks"], ["dispatcher"], ["api"], ["submit", "a.jsonl"], ["doctor"]]
)
def test_every_process_says_it_in_one_sentence_and_does_not_start(
    command: list[str],
    settings: Settings,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["guardfleet", *command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == UNUSABLE
    out, err = capsys.readouterr()
    said = [line for line in (out if command == ["doctor"] else err).splitlines() if SAID in line]
    assert len(said) == 1, said
    assert said[0].startswith(f"{'no  pooler' if command == ['doctor'] else 'guardfleet'}: {SAID}")


def test_a_pooler_is_found_also_by_who_comes_later(settings: Settings) -> None:
    for _ in range(3):
        db = Database(settings.required("database_url"))
        with pytest.raises(ConfigurationError, match=SAID):
            pooler.require_prepared(db)
        db.close()


def test_servers_that_stay_with_their_client_are_fine(db: Database, database_url: str) -> None:
    pooler.require_prepared(db)
    pooler.require_prepared(db)
    with in_front_of(database_url) as (_, through):
        proxied = Database(through)
        pooler.require_prepared(proxied)
        proxied.close()
