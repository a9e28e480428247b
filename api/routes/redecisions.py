"""Re-decisions: a policy applied to stored verdicts, without a model, in as many requests as it takes."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field, StringConstraints

from api.context import AppContext, PoliciesWriter
from api.http.fields import Asked
from api.http.header_parameters import PREFER, reads
from api.http.long_requests import wait_s
from api.http.threads import beside, in_thread
from api.schemas.base import answer
from api.schemas.policies import Redecision
from api.services.policy_passes import LONGEST_PASS_S, PASS_S, redecided
from api.services.stored_scope import scope_of
from guardfleet.domain.options import WHOLE
from guardfleet.jobs.redecide import label_of

router = APIRouter(tags=["policies"])

Since = Annotated[int, Field(ge=0, le=100_000_000_000), WHOLE]
Label = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class RedecisionRequest(Asked):
    """What to decide of again, and by which policy; by default the active one."""

    model_config = ConfigDict(extra="forbid", strict=True)
    batch_id: Label | None = Field(None, description="The texts of this batch.")
    since: Since | None = Field(None, description="The texts of all batches since this Unix time.")
    policy: Label | None = Field(None, description="`name@version`, or the newest version of a name.")


@router.post("/v1/redecisions", operation_id="createRedecision", responses=answer(Redecision), openapi_extra=reads(PREFER))
async def create(request: Request, asked: RedecisionRequest, context: AppContext, caller: PoliciesWriter) -> dict[str, Any]:
    """Apply a policy to stored verdicts. Send the same request again until it is `complete`: it goes on where the last one ended.

    Texts that the policy has decided of are left as they are. `Prefer: wait=N`: up to N s a request (10, at most 30).
    """
    scope = await in_thread(scope_of, context.db, caller.tenant_id, asked.batch_id, asked.since)
    version = await in_thread(label_of, context.db, caller.tenant_id, asked.policy)
    seconds = wait_s(request, otherwise=PASS_S, longest=LONGEST_PASS_S)
    with context.passes.taken(caller.key_id):
        return await beside(context.pass_threads, redecided, context.db, version, scope, seconds)
