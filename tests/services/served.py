"""The HTTP API in this process, with or without a socket; and a worker in a few lines."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from api.http.connections import make_server
from api.server import create_app
from guardfleet.domain import ids
from guardfleet.domain.verdict import Judgement, Model
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import models
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, leases
from guardfleet.store.shards.completion import Row
from tests.services.fleet import until
from tests.services.judged import UNSAFE
from tests.services.patience import patience


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The application on a free port of 127.0.0.1; its URL."""
    server = make_server(create_app(settings), settings.but(api_port=0))
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),), daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive(), what="the API")
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(patience(20))


@contextmanager
def judging(db: Database, keyring: Keyring, *, judgement: Judgement = UNSAFE) -> Iterator[None]:
    """Run a worker in a few lines: it judges whatever is ready for as long as the block lasts."""
    ended, model_id = threading.Event(), models.register(db, Model("m", "r", "p"))

    def work() -> None:
        while not ended.wait(0.02):
            with db.session() as connection:
                ready = connection.execute("select job_id, shard_no from shard where state = 0").fetchall()
            for row in ready:
                held = leases.claim(db, row.job_id, row.shard_no, worker="w", lease_s=60)
                if held is not None:
                    texts = leases.load(db, keyring, held)
                    completion.finish(db, held, [Row(text.id, judgement) for text in texts], model_id=model_id)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(patience(20))


def judge(db: Database, batch_id: str, *nos: int, judgement: Judgement = UNSAFE) -> None:
    """Judge shards of a batch (all that are ready) as a worker would."""
    job = views.get(db, ids.JOB.parse(batch_id))
    model_id = models.register(db, Model("m", "r", "p"))
    for no in nos or range(1000):
        held = leases.claim(db, job.id, no, worker="w", lease_s=60)
        if held is None:
            assert not nos, f"shard {no} cannot be had"
            return
        completion.finish(db, held, [Row(row.id, judgement) for row in _texts(db, held)], model_id=model_id)


def _texts(db: Database, held: leases.Claim) -> Any:
    from guardfleet.security.encryption import Keyring
    from tests.services.fixtures import SECRET_KEY

    return leases.load(db, Keyring(SECRET_KEY), held)
