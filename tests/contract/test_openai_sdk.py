"""The unmodified openai SDK, validating strictly, over a real socket and without one."""

import asyncio
import json
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest
from httpx2 import ASGITransport, AsyncClient

from api.server import create_app
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys
from guardfleet.store.jobs import control
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.judged import failed
from tests.services.served import judge, served

Use = Callable[[Callable[[openai.AsyncOpenAI], Awaitable[None]]], None]


@pytest.fixture
def api_settings(database_url: str, tmp_path: pathlib.Path) -> Settings:
    return load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, shard_texts=4, max_text_bytes=1000)


@pytest.fixture(params=["socket", "in process"])
def use(request: pytest.FixtureRequest, api_settings: Settings, db: Database, keyring: Keyring) -> Use:
    """Run something with a client of its own."""
    key = keys.create(db, keyring, name="sdk")

    def client_of(url: str, http: AsyncClient | None = None) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=key, base_url=f"{url}/v1", http_client=http, max_retries=0, _strict_response_validation=True
        )

    async def over_socket(url: str, body: Callable[[openai.AsyncOpenAI], Awaitable[None]]) -> None:
        async with client_of(url) as client:
            await body(client)

    async def in_process(body: Callable[[openai.AsyncOpenAI], Awaitable[None]]) -> None:
        app = create_app(api_settings)
        async with (
            app.router.lifespan_context(app),
            AsyncClient(transport=ASGITransport(app=app), base_url="http://guardfleet") as http,
        ):
            await body(client_of("http://guardfleet", http))

    def run(body: Callable[[openai.AsyncOpenAI], Awaitable[None]]) -> None:
        if request.param == "in process":
            asyncio.run(in_process(body))
            return
        with served(api_settings) as url:
            asyncio.run(over_socket(url, body))

    return run


def line(custom_id: str, text: str = "a text", url: str = "/v1/moderations") -> str:
    body: dict[str, Any] = {"input": text} if url == "/v1/moderations" else {"messages": [{"role": "user", "content": text}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "m", **body}})


async def upload(client: openai.AsyncOpenAI, *lines: str) -> str:
    file = await client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
    return file.id


async def sealed(client: openai.AsyncOpenAI, batch_id: str) -> Any:
    for _ in range(1000):
        batch = await client.batches.retrieve(batch_id)
        if batch.status != "validating":
            return batch
        await asyncio.sleep(0.02)
    raise AssertionError("the batch is validated for ever")


async def content(client: openai.AsyncOpenAI, file_id: str | None) -> list[Any]:
    assert file_id is not None
    return [json.loads(row) for row in (await client.files.content(file_id)).text.splitlines()]


def test_files_are_kept_listed_read_and_deleted(use: Use) -> None:
    async def body(client: openai.AsyncOpenAI) -> None:
        data = "\n".join(line(str(i)) for i in range(10)).encode()
        file = await client.files.create(
            file=("my texts.jsonl", data), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        assert (file.filename, file.bytes, file.purpose, file.status) == ("my texts.jsonl", len(data), "batch", "processed")
        assert file.expires_at == file.created_at + 3600
        assert (await client.files.retrieve(file.id)).id == (await client.files.wait_for_processing(file.id)).id == file.id
        assert (await client.files.content(file.id)).content == data
        second = await upload(client, line("1"))
        assert [each.id async for each in client.files.list(limit=1)] == [second, file.id]
        assert [each.id async for each in client.files.list(order="asc", purpose="batch")] == [file.id, second]
        assert (await client.files.delete(file.id)).deleted
        for call in (client.files.retrieve, client.files.content, client.files.delete):
            with pytest.raises(openai.NotFoundError):
                await call(file.id)
        with pytest.raises(openai.BadRequestError, match="not a JSONL"):
            await upload(client, "id,text")
        with pytest.raises(openai.BadRequestError, match="purpose"):
            await client.files.create(file=("in.jsonl", data), purpose="vision")

    use(body)


def test_a_batch_completes_with_its_failed_lines_apart(use: Use, db: Database) -> None:
    async def body(client: openai.AsyncOpenAI) -> None:
        lines = [line(f"r{i}") for i in range(5)] + ["{bad", line("r0"), line("other", url="/v1/chat/completions")]
        file_id = await upload(client, *lines)
        batch = await client.batches.create(
            input_file_id=file_id, endpoint="/v1/moderations", completion_window="24h", metadata={"team": "a"}
        )
        assert (batch.input_file_id, batch.metadata, batch.endpoint) == (file_id, {"team": "a"}, "/v1/moderations")
        assert batch.expires_at == batch.created_at + 86_400
        assert (await sealed(client, batch.id)).status == "in_progress"
        judge(db, batch.id, 0)
        judge(db, batch.id, 1, judgement=failed("engine_failed"))
        done = await client.batches.retrieve(batch.id)
        assert (done.status, done.completed_at is not None) == ("completed", True)
        assert done.request_counts is not None
        assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (8, 4, 4)
        assert done.errors is not None
        assert done.errors.data is not None
        assert [(error.line, error.code) for error in done.errors.data] == [
            (6, "invalid_json"), (7, "duplicate_id"), (8, "url_mismatch"),
        ]  # fmt: skip
        out = await content(client, done.output_file_id)
        assert [row["custom_id"] for row in out] == ["r0", "r1", "r2", "r3"]
        assert all(row["error"] is None and row["response"]["status_code"] == 200 for row in out)
        result = openai.types.Moderation.model_validate(out[0]["response"]["body"]["results"][0])
        assert (result.flagged, result.categories.violence, result.categories.hate) == (True, True, False)
        assert (result.category_scores.violence, result.category_applied_input_types.violence) == (1.0, ["text"])
        errors = await content(client, done.error_file_id)
        assert [(row["custom_id"], (row["error"] or row["response"]["body"]["error"])["code"]) for row in errors] == [
            ("r4", "engine_failed"), (None, "invalid_json"), ("r0", "duplicate_id"), ("other", "url_mismatch"),
        ]  # fmt: skip
        about = await client.files.retrieve(done.output_file_id or "")
        assert (about.purpose, about.bytes) == ("batch_output", len((await client.files.content(about.id)).content))

    use(body)


def test_a_batch_whose_lines_all_fail_is_completed_without_output(use: Use) -> None:
    async def body(client: openai.AsyncOpenAI) -> None:
        file_id = await upload(client, line("a", url="/v1/chat/completions"))
        batch = await client.batches.create(input_file_id=file_id, endpoint="/v1/moderations", completion_window="24h")
        done = await sealed(client, batch.id)
        assert (done.status, done.output_file_id) == ("completed", None)
        assert [row["response"]["status_code"] for row in await content(client, done.error_file_id)] == [400]
        strict = await client.batches.create(
            input_file_id=file_id, endpoint="/v1/moderations", completion_window="24h", extra_body={"strict": True}
        )
        failed = await sealed(client, strict.id)
        assert (failed.status, failed.output_file_id, failed.error_file_id) == ("failed", None, None)

    use(body)


def test_chat_completions_are_answered_with_the_guards_own_words(use: Use, db: Database) -> None:
    async def body(client: openai.AsyncOpenAI) -> None:
        url = "/v1/chat/completions"
        file_id = await upload(client, line("a", url=url))
        batch = await client.batches.create(input_file_id=file_id, endpoint=url, completion_window="1h")  # type: ignore[arg-type]
        await sealed(client, batch.id)
        judge(db, batch.id)
        (row,) = await content(client, (await client.batches.retrieve(batch.id)).output_file_id)
        completion = openai.types.chat.ChatCompletion.model_validate(row["response"]["body"])
        assert completion.choices[0].message.content == "Safety: Unsafe\nCategories: Violent"

    use(body)


def test_cancelled_and_expired_batches_keep_what_they_have(use: Use, db: Database) -> None:
    async def body(client: openai.AsyncOpenAI) -> None:
        file_id = await upload(client, *(line(f"r{i}") for i in range(8)))
        ends = {}
        for end in ("cancelled", "expired"):
            batch = await client.batches.create(input_file_id=file_id, endpoint="/v1/moderations", completion_window="24h")
            await sealed(client, batch.id)
            judge(db, batch.id, 0)
            if end == "cancelled":
                assert (await client.batches.cancel(batch.id)).status == "cancelled"
            else:
                with db.begin() as connection:
                    connection.execute("update job set expires_at = now() where state = 1")
                (overdue,) = control.overdue(db)
                control.expire(db, overdue)
            ended = ends[end] = await client.batches.retrieve(batch.id)
            assert ended.status == end
            assert [row["custom_id"] for row in await content(client, ended.output_file_id)] == ["r0", "r1", "r2", "r3"]
            left = await content(client, ended.error_file_id)
            assert [(row["custom_id"], row["error"]["code"]) for row in left] == [(f"r{i}", f"batch_{end}") for i in range(4, 8)]
        assert [batch.id async for batch in client.batches.list(limit=1)] == [ends["expired"].id, ends["cancelled"].id]
        assert ends["cancelled"].cancelled_at is not None
        assert ends["expired"].expired_at is not None
        with pytest.raises(openai.ConflictError) as refused:
            await client.batches.cancel(ends["expired"].id)
        assert refused.value.response.headers["x-should-retry"] == "false"

    use(body)


def test_webhook_endpoints_are_made_changed_and_rotated(use: Use) -> None:
    async def body(client: openai.AsyncOpenAI) -> None:
        made = await client.webhooks.create(name="mine", url="https://example.com/hook", event_types=["batch.completed"])
        assert made.signing_secret.startswith("whsec_")
        assert made.signing_secret_hint == made.signing_secret[-4:]
        found = await client.webhooks.retrieve(made.id)
        assert (found.name, found.url, found.event_types) == ("mine", "https://example.com/hook", ["batch.completed"])
        changed = await client.webhooks.update(made.id, name="other", event_types=["batch.failed", "batch.expired"])
        assert (changed.name, changed.event_types, changed.url) == ("other", ["batch.failed", "batch.expired"], found.url)
        rotated = await client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
        assert rotated.signing_secret != made.signing_secret
        assert (await client.webhooks.rotate_secret(made.id)).signing_secret != rotated.signing_secret
        second = await client.webhooks.create(name="b", url="https://example.com/b", event_types=["batch.completed"])
        assert [each.id async for each in client.webhooks.list(limit=1)] == [second.id, made.id]
        assert "verdict.flagged" in (await client.webhooks.event_types.list()).data
        assert (await client.webhooks.delete(made.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.webhooks.retrieve(made.id)
        for url in ("http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::1]/", "ftp://x/", "https://a:b@c/"):
            with pytest.raises(openai.BadRequestError):
                await client.webhooks.create(name="c", url=url, event_types=["batch.completed"])

    use(body)


def test_errors_have_the_class_and_code_that_the_sdk_knows(use: Use) -> None:
    async def body(client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as missing:
            await client.batches.retrieve("batch_" + "0" * 32)
        assert missing.value.code == "not_found"
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="gf_wrong").batches.list()
        file_id = await upload(client, line("a"))
        with pytest.raises(openai.UnprocessableEntityError) as wrong:
            await client.batches.create(input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h")
        assert (wrong.value.code, wrong.value.param) == ("invalid_parameter", "endpoint")

    use(body)


def test_a_retry_that_the_sdk_sends_makes_no_second_batch(use: Use) -> None:
    async def body(client: openai.AsyncOpenAI) -> None:
        file_id = await upload(client, line("a"))

        async def create(**headers: str) -> str:
            batch = await client.batches.create(
                input_file_id=file_id, endpoint="/v1/moderations", completion_window="24h", extra_headers=headers
            )
            return batch.id

        first = await create()
        assert await create(**{"x-stainless-retry-count": "1"}) == first
        assert await create() != first
        keyed = await create(**{"Idempotency-Key": "k1"})
        assert await create(**{"Idempotency-Key": "k1"}) == keyed
        with pytest.raises(openai.UnprocessableEntityError, match="used for a different request"):
            await client.batches.create(
                input_file_id=file_id, endpoint="/v1/moderations", completion_window="1h", extra_headers={"Idempotency-Key": "k1"}
            )

    use(body)


def test_what_clients_send_that_others_do_not_is_answered_as_what_it_is(use: Use, db: Database, keyring: Keyring) -> None:
    async def body(client: openai.AsyncOpenAI) -> None:
        file_id = await upload(client, line("a"))
        made = await client.batches.with_raw_response.create(
            input_file_id=file_id,
            endpoint="/v1/moderations",
            completion_window="24h",
            output_expires_after={"anchor": "created_at", "seconds": 3600},
        )
        assert made.headers["guardfleet-ignored"] == "output_expires_after"
        await sealed(client, made.parse().id)
        judge(db, made.parse().id)
        assert [(await client.models.retrieve(model.id)).id async for model in client.models.list()] == ["m"]
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("org/other")
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        for given in ([image], [{"type": "text", "text": "a"}, image]):
            with pytest.raises(openai.UnprocessableEntityError, match="no image") as refused:
                await client.moderations.create(input=given)  # type: ignore[arg-type]
            assert refused.value.param == f"input[{len(given) - 1}].type"
        with pytest.raises(openai.UnprocessableEntityError, match=r"valid string, or: .*valid list"):
            await client.moderations.create(input=5)  # type: ignore[arg-type]
        with pytest.raises(openai.APIStatusError, match="Content-Type: application/json"):
            await client.post(
                "/moderations", cast_to=object, content=b'{"input":"x"}', options={"headers": {"content-type": "x/y"}}
            )

    use(body)
