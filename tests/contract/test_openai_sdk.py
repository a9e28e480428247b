"""The unmodified openai SDK, validating strictly, reads what the thin API answers."""

import openai
import pytest
from httpx2 import ASGITransport, AsyncClient

from api.server import create_app
from guardfleet.sealing import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import keys
from guardfleet.store.database import Database
from tests.services.fixtures import SECRET_KEY


def test_batches_are_retrieved_and_cancelled_in_strict_mode(database_url: str, db: Database, keyring: Keyring) -> None:
    import asyncio

    app = create_app(load_settings(database_url=database_url, secret_key=SECRET_KEY))
    key = keys.create(db, keyring, name="sdk")

    async def use() -> None:
        async with AsyncClient(transport=ASGITransport(app=app), base_url="http://guardfleet") as http:
            posted = await http.post(
                "/v1/batches",
                content=b'{"id": "1", "text": "x"}\n{bad',
                headers={"content-type": "application/x-ndjson", "authorization": f"Bearer {key}"},
            )
            client = openai.AsyncOpenAI(
                api_key=key, base_url="http://guardfleet/v1", http_client=http, max_retries=0, _strict_response_validation=True
            )
            batch = await client.batches.retrieve(posted.json()["id"])
            assert (batch.status, batch.request_counts.total if batch.request_counts else None) == ("in_progress", 2)
            cancelled = await client.batches.cancel(batch.id)
            assert cancelled.status == "cancelled"
            with pytest.raises(openai.NotFoundError) as missing:
                await client.batches.retrieve("batch_" + "0" * 32)
            assert missing.value.code == "not_found"
            wrong = client.with_options(api_key="gf_wrong")
            with pytest.raises(openai.AuthenticationError):
                await wrong.batches.retrieve(batch.id)

    asyncio.run(use())
    app.state.context.db.close()
