"""Webhook endpoints, deliveries and the events that are delivered."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from api.schemas.base import Answer, Deleted, IsoTime, Page, UnixTime, may_lack, one_of
from api.schemas.verdicts import ActionWord
from guardfleet.domain.events import KINDS
from guardfleet.domain.states import DeliveryState

EventType = Annotated[str, one_of(KINDS)]


class EventTypes(Answer):
    """The types of events."""

    object: Literal["list"]
    data: list[EventType]


class WebhookEndpoint(Answer):
    """OpenAI's webhook endpoint, with its health."""

    id: str
    object: Literal["webhook_endpoint"]
    name: str
    url: str
    event_types: list[EventType]
    created_at: UnixTime
    updated_at: UnixTime | None
    signing_secret_hint: str
    enabled: bool
    disabled_reason: str | None
    max_per_second: float | None
    failing_since: UnixTime | None
    signing_secret: str | SkipJsonSchema[None] = may_lack("Shown once, where it is made.")


class WebhookEndpointPage(Page[WebhookEndpoint]):
    """Endpoints, newest first."""


class WebhookEndpointDeleted(Deleted):
    """A deleted endpoint."""

    object: Literal["webhook_endpoint.deleted"]


class WebhookEndpointTest(Answer):
    """A test event that was received."""

    object: Literal["webhook_endpoint.test"]
    webhook_endpoint_id: str
    event_type: EventType
    status_code: int
    success: Literal[True]


class WebhookAttempt(Answer):
    """The last attempt of a delivery."""

    at: UnixTime
    status_code: int | None
    latency_ms: int | None
    error: str | None


class WebhookDelivery(Answer):
    """An event sent, or to be sent, to an endpoint."""

    id: int
    object: Literal["webhook_endpoint.delivery"]
    event_id: str
    event_type: EventType
    created_at: UnixTime
    status: Annotated[str, one_of(state.name.lower() for state in DeliveryState)]
    attempts: int
    next_attempt_at: UnixTime | None
    last_attempt: WebhookAttempt | None


class WebhookDeliveryPage(Answer):
    """Deliveries, newest first."""

    object: Literal["list"]
    data: list[WebhookDelivery]
    first_id: int | None
    last_id: int | None
    has_more: bool


class Recovered(Answer):
    """How many deliveries will be made again."""

    object: Literal["webhook_endpoint.recovery"]
    webhook_endpoint_id: str
    deliveries: int


class EventData(Answer):
    """What an event is about."""

    id: str
    unsafe: int | SkipJsonSchema[None] = may_lack("Of `verdict.flagged`: the shard's unsafe texts.")
    actions: dict[ActionWord, int] | SkipJsonSchema[None] = may_lack(
        "Of `verdict.flagged`, where a policy decided: the shard's texts to flag, review and block."
    )


class Event(Answer):
    """An event as it is delivered."""

    id: str = Field(description="The same at each attempt; use it to recognise repeats.")
    object: Literal["event"]
    type: EventType
    created_at: int = Field(description="Events arrive in any order: order them by this and by their counts.")
    timestamp: IsoTime
    data: EventData
