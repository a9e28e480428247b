"""Webhook endpoints in OpenAI's shape: created, changed, rotated, tested; what was sent to them, and sending it again.

Workers make the deliveries. A test is delivered the same way, and waited for.
"""

import asyncio
import datetime as dt
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field, StringConstraints

from api.context import AppContext, Context, WebhooksReader, WebhooksWriter
from api.http.fields import Asked
from api.http.pages import page_object
from api.http.problems import ProblemError
from api.http.threads import in_thread
from api.schemas.base import answer
from api.schemas.webhooks import (
    EventTypes,
    Recovered,
    WebhookDeliveryPage,
    WebhookEndpoint,
    WebhookEndpointDeleted,
    WebhookEndpointPage,
    WebhookEndpointTest,
)
from guardfleet.domain import ids
from guardfleet.domain.events import KINDS, EventKind
from guardfleet.domain.options import WHOLE
from guardfleet.domain.states import DeliveryState
from guardfleet.store.events import deliveries, endpoints
from guardfleet.store.events.endpoints import HINT_CHARACTERS, Delivery, Endpoint

router = APIRouter(tags=["webhooks"])

OVERLAP_S = 86_400.0
LOOK_S = 0.05
TEST_MARGIN_S = 5.0  # besides the time of the delivery itself
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Url = Annotated[str, StringConstraints(max_length=2000)]
Kinds = Annotated[list[EventKind], Field(min_length=1, max_length=20)]
Pace = Annotated[float, Field(ge=0.001, le=1000, description="Most deliveries per second; null: unlimited.")]


class NewEndpoint(Asked):
    """A new endpoint."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: Name
    url: Url
    event_types: Kinds
    max_per_second: Pace | None = None


class EndpointChanges(Asked):
    """Fields to change; omitted fields keep their value. `enabled` and `max_per_second` are guardfleet's own."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: Name | None = None
    url: Url | None = None
    event_types: Kinds | None = None
    enabled: bool | None = None
    max_per_second: Pace | None = None


class Rotation(Asked):
    """How to change a secret."""

    model_config = ConfigDict(strict=True)
    keep_old_secret_active_for_24_hours: bool = False


class Test(Asked):
    """The event to send as a test."""

    model_config = ConfigDict(strict=True)
    event_type: EventKind


class Recovery(Asked):
    """Which deliveries to make again."""

    model_config = ConfigDict(extra="forbid", strict=True)
    since: Annotated[int, Field(ge=0, le=100_000_000_000, description="Only events since this Unix time."), WHOLE]


@router.get("/v1/webhook_event_types", operation_id="listWebhookEventTypes", responses=answer(EventTypes))
async def event_types(caller: WebhooksReader) -> dict[str, Any]:
    """List the event types. The last two are guardfleet's own: each tenth of a batch, and each shard with flagged texts."""
    del caller
    return {"object": "list", "data": list(KINDS)}


@router.post("/v1/webhook_endpoints", operation_id="createWebhookEndpoint", responses=answer(WebhookEndpoint))
async def create(new: NewEndpoint, context: AppContext, caller: WebhooksWriter) -> dict[str, Any]:
    """Create an endpoint. Its `signing_secret` is in this answer and never shown again."""
    url = await context.receivers.check(new.url, tenant_id=caller.tenant_id)
    made, secret = await in_thread(
        endpoints.create,
        context.db,
        context.keyring,
        tenant_id=caller.tenant_id,
        name=new.name,
        url=url,
        kinds=new.event_types,
        most_per_s=new.max_per_second,
    )
    return endpoint_object(context, made) | {"signing_secret": secret}


@router.get("/v1/webhook_endpoints", operation_id="listWebhookEndpoints", responses=answer(WebhookEndpointPage))
async def listing(
    context: AppContext,
    caller: WebhooksReader,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """List your endpoints, newest first."""
    start = ids.ENDPOINT.parse(after) if after else None
    found = await in_thread(endpoints.page, context.db, tenant_id=caller.tenant_id, after=start, limit=limit + 1)
    return page_object([endpoint_object(context, each) for each in found[:limit]], has_more=len(found) > limit)


@router.get("/v1/webhook_endpoints/{endpoint_id}", operation_id="retrieveWebhookEndpoint", responses=answer(WebhookEndpoint))
async def retrieve(endpoint_id: str, context: AppContext, caller: WebhooksReader) -> dict[str, Any]:
    """Return an endpoint's description."""
    public_id = ids.ENDPOINT.parse(endpoint_id)
    return endpoint_object(context, await in_thread(endpoints.get, context.db, public_id, tenant_id=caller.tenant_id))


@router.post("/v1/webhook_endpoints/{endpoint_id}", operation_id="updateWebhookEndpoint", responses=answer(WebhookEndpoint))
async def update(endpoint_id: str, changes: EndpointChanges, context: AppContext, caller: WebhooksWriter) -> dict[str, Any]:
    """Change an endpoint. Enabling a disabled one resets its failures; use `recover` to send what was given up."""
    public_id = ids.ENDPOINT.parse(endpoint_id)
    if changes.url is not None:
        await context.receivers.check(changes.url, tenant_id=caller.tenant_id)
    asked = changes.model_dump(exclude_none=True)
    if "event_types" in asked:
        asked["kinds"] = asked.pop("event_types")
    asked.pop("max_per_second", None)
    if "max_per_second" in changes.model_fields_set:
        asked["most_per_s"] = changes.max_per_second
    found = await in_thread(endpoints.update, context.db, public_id, tenant_id=caller.tenant_id, changes=asked)
    return endpoint_object(context, found)


@router.delete(
    "/v1/webhook_endpoints/{endpoint_id}", operation_id="deleteWebhookEndpoint", responses=answer(WebhookEndpointDeleted)
)
async def delete(endpoint_id: str, context: AppContext, caller: WebhooksWriter) -> dict[str, Any]:
    """Delete an endpoint and its pending deliveries."""
    await in_thread(endpoints.delete, context.db, ids.ENDPOINT.parse(endpoint_id), tenant_id=caller.tenant_id)
    return {"id": endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True}


@router.post(
    "/v1/webhook_endpoints/{endpoint_id}/rotate_secret", operation_id="rotateWebhookSecret", responses=answer(WebhookEndpoint)
)
async def rotate(endpoint_id: str, context: AppContext, caller: WebhooksWriter, rotation: Rotation | None = None) -> dict[str, Any]:
    """Create a new secret, shown in this answer only. The old one can keep signing beside it for a day."""
    overlap_s = OVERLAP_S if rotation is not None and rotation.keep_old_secret_active_for_24_hours else 0.0
    public_id = ids.ENDPOINT.parse(endpoint_id)
    found, secret = await in_thread(
        endpoints.rotate, context.db, context.keyring, public_id, tenant_id=caller.tenant_id, overlap_s=overlap_s
    )
    return endpoint_object(context, found) | {"signing_secret": secret}


@router.post("/v1/webhook_endpoints/{endpoint_id}/test", operation_id="testWebhookEndpoint", responses=answer(WebhookEndpointTest))
async def test(endpoint_id: str, asked: Test, context: AppContext, caller: WebhooksWriter) -> dict[str, Any]:
    """Send a test event once, like any other. Answers 400 with the outcome unless the receiver answers 2xx."""
    public_id = ids.ENDPOINT.parse(endpoint_id)
    delivery = await in_thread(endpoints.send_test, context.db, public_id, tenant_id=caller.tenant_id, kind=asked.event_type)
    outcome = None
    for _ in range(int((context.settings.webhooks.timeout_s + TEST_MARGIN_S) / LOOK_S)):
        outcome = await in_thread(deliveries.outcome, context.db, delivery)
        if outcome is not None:
            break
        await asyncio.sleep(LOOK_S)
    if outcome is None:
        detail = "no worker delivered it in time: is `guardfleet worker --webhooks` running?"
        raise ProblemError(503, "not_delivered", detail, headers={"x-should-retry": "false"})
    if outcome.status is None or not 200 <= outcome.status < 300:  # noqa: PLR2004 - HTTP success
        said = f"answered {outcome.status}" if outcome.status else f"did not answer: {outcome.error}"
        raise ProblemError(400, "webhook_test_failed", f"the receiver {said}.", headers={"x-should-retry": "false"})
    return {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": endpoint_id,
        "event_type": asked.event_type,
        "status_code": outcome.status,
        "success": True,
    }


@router.get(
    "/v1/webhook_endpoints/{endpoint_id}/deliveries", operation_id="listWebhookDeliveries", responses=answer(WebhookDeliveryPage)
)
async def sent(
    endpoint_id: str,
    context: AppContext,
    caller: WebhooksReader,
    after: Annotated[int | None, Query(ge=1, lt=1 << 62)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """List an endpoint's deliveries, newest first, each with its last attempt."""
    public_id = ids.ENDPOINT.parse(endpoint_id)
    await in_thread(endpoints.get, context.db, public_id, tenant_id=caller.tenant_id)
    found = await in_thread(endpoints.deliveries, context.db, public_id, tenant_id=caller.tenant_id, before=after, limit=limit + 1)
    return page_object([delivery_object(each) for each in found[:limit]], has_more=len(found) > limit)


@router.post(
    "/v1/webhook_endpoints/{endpoint_id}/deliveries/{delivery_id}/retry",
    operation_id="retryWebhookDelivery",
    responses=answer(Recovered),
)
async def retry(endpoint_id: str, delivery_id: int, context: AppContext, caller: WebhooksWriter) -> dict[str, Any]:
    """Repeat one ended delivery, under the same event id."""
    public_id = ids.ENDPOINT.parse(endpoint_id)
    known = delivery_id if 0 < delivery_id < 1 << 62 else 0
    n = await in_thread(endpoints.resend, context.db, public_id, tenant_id=caller.tenant_id, delivery_id=known)
    return {"object": "webhook_endpoint.recovery", "webhook_endpoint_id": endpoint_id, "deliveries": n}


@router.post("/v1/webhook_endpoints/{endpoint_id}/recover", operation_id="recoverWebhookDeliveries", responses=answer(Recovered))
async def recover(endpoint_id: str, asked: Recovery, context: AppContext, caller: WebhooksWriter) -> dict[str, Any]:
    """Repeat all deliveries that were given up, for events since then."""
    public_id = ids.ENDPOINT.parse(endpoint_id)
    await in_thread(endpoints.get, context.db, public_id, tenant_id=caller.tenant_id)
    since = dt.datetime.fromtimestamp(asked.since, dt.UTC)
    n = await in_thread(endpoints.resend, context.db, public_id, tenant_id=caller.tenant_id, since=since)
    return {"object": "webhook_endpoint.recovery", "webhook_endpoint_id": endpoint_id, "deliveries": n}


def endpoint_object(context: Context, endpoint: Endpoint) -> dict[str, Any]:
    """Return an endpoint as OpenAI's object, with its health."""
    return {
        "id": endpoint.label,
        "object": "webhook_endpoint",
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": endpoint.kinds,
        "created_at": int(endpoint.created_at.timestamp()),
        "updated_at": int(endpoint.updated_at.timestamp()) if endpoint.updated_at else None,
        "signing_secret_hint": context.keyring.decrypt_secret(endpoint.secret)[-HINT_CHARACTERS:],
        "enabled": endpoint.enabled,
        "disabled_reason": endpoint.disabled_reason,
        "max_per_second": endpoint.most_per_s,
        "failing_since": int(endpoint.failing_since.timestamp()) if endpoint.failing_since else None,
    }


def delivery_object(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery and its last attempt."""
    attempt = None
    if delivery.attempted_at is not None:
        attempt = {
            "at": int(delivery.attempted_at.timestamp()),
            "status_code": delivery.status,
            "latency_ms": delivery.latency_ms,
            "error": delivery.error,
        }
    is_open = delivery.state in (DeliveryState.PENDING, DeliveryState.SENDING)
    return {
        "id": delivery.id,
        "object": "webhook_endpoint.delivery",
        "event_id": delivery.event_id,
        "event_type": delivery.kind,
        "created_at": int(delivery.occurred_at.timestamp()),
        "status": DeliveryState(delivery.state).name.lower(),
        "attempts": delivery.attempts,
        "next_attempt_at": int(delivery.next_attempt_at.timestamp()) if is_open else None,
        "last_attempt": attempt,
    }
