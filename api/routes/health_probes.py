"""Probes on the API's own port, in the words of all processes' probe ports."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from api.context import AppContext
from api.http.threads import in_thread
from api.schemas.base import answer
from api.schemas.verdicts import Health
from guardfleet.telemetry import probes
from guardfleet.telemetry.probes import Answer

router = APIRouter(tags=["probes"])
UNREADY: dict[int | str, dict[str, Any]] = {503: {"description": "Not ready, and why.", "content": {"text/plain": {}}}}


@router.get("/livez", operation_id="checkLiveness", response_class=PlainTextResponse)
async def livez(context: AppContext) -> Response:
    """Report that the process runs its event loop."""
    return _response(probes.livez(context.health))


@router.get("/readyz", operation_id="checkReadiness", response_class=PlainTextResponse, responses=UNREADY)
async def readyz(context: AppContext) -> Response:
    """Report whether the database answers, accepts writes, and has this process's secret key."""
    await in_thread(context.health.refresh)
    return _response(probes.ready(context.health.report().in_public()))


@router.get("/healthz", operation_id="checkHealth", responses=answer(Health) | answer(Health, status=503, description="Unhealthy."))
async def healthz(context: AppContext) -> Response:
    """Report in a word, `healthy`, `degraded` or `unhealthy`, and with reasons. 503 if unhealthy."""
    await in_thread(context.health.refresh)
    return _response(probes.in_words(context.health.report().in_public()))


def _response(said: Answer) -> Response:
    is_well, kind, body = said
    return Response(body, 200 if is_well else 503, media_type=kind)
