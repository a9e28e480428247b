"""Policies for prompts: what detectors that take one judge by. Their versions, stored and read."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from api.context import AppContext, PoliciesReader, PoliciesWriter
from api.http.header_parameters import IDEMPOTENCY_KEY, reads
from api.http.idempotency import Once
from api.http.pages import page_of_versions
from api.http.threads import in_thread
from api.schemas.base import answer
from api.schemas.policies import PromptPolicy, PromptPolicyPage
from guardfleet.domain.detection import DETECTOR_NAME
from guardfleet.store.policy import prompt_policies
from guardfleet.store.policy.prompt_policies import MOST_CHARS, Version

router = APIRouter(prefix="/v1/prompt-policies", tags=["policies"])

Name = Annotated[str, Path(max_length=100)]
Number = Annotated[int, Path(ge=1, lt=10**9)]


class PromptPolicyRequest(BaseModel):
    """A policy's name and its text."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Field(pattern=f"^{DETECTOR_NAME.pattern}$", description="The policy: lower-case letters, digits, - and _.")
    text: str = Field(min_length=1, max_length=MOST_CHARS, description="What is put into the prompt, as the model expects it.")


@router.post(
    "",
    operation_id="createPromptPolicy",
    responses=answer(PromptPolicy) | answer(PromptPolicy, status=201, description="A new version."),
    openapi_extra=reads(IDEMPOTENCY_KEY),
)
async def create(asked: PromptPolicyRequest, request: Request, context: AppContext, caller: PoliciesWriter) -> Response:
    """Store a text as the next version of a policy: 201. One equal to its newest version is that one: 200."""
    await in_thread(prompt_policies.check, asked.name, asked.text)
    async with Once.of(request, context.db, caller, await request.body()) as once:
        if once.earlier is not None:
            return JSONResponse(policy_object(await in_thread(prompt_policies.get, context.db, caller.tenant_id, once.earlier)))
        made, is_new = await in_thread(
            prompt_policies.add, context.db, caller.tenant_id, asked.name, asked.text, also=once.recording()
        )
        return JSONResponse(policy_object(made), 201 if is_new else 200)


@router.get("", operation_id="listPromptPolicies", responses=answer(PromptPolicyPage))
async def listing(
    context: AppContext,
    caller: PoliciesReader,
    after: Annotated[str | None, Query(max_length=100, description="`last_id` of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """List all versions of your policies for prompts, newest first."""
    return await page_of_versions(
        prompt_policies.page, policy_object, context.db, caller, after=after, limit=limit, what="policies"
    )


@router.get("/{name}@{version}", operation_id="retrievePromptPolicy", responses=answer(PromptPolicy))
async def retrieve(name: Name, version: Number, context: AppContext, caller: PoliciesReader) -> dict[str, Any]:
    """Return a version with its text."""
    return policy_object(await in_thread(prompt_policies.get, context.db, caller.tenant_id, f"{name}@{version}"))


def policy_object(found: Version) -> dict[str, Any]:
    """Return a version with its text."""
    return {
        "id": found.label,
        "object": "prompt_policy",
        "name": found.name,
        "version": found.version,
        "created_at": int(found.created_at.timestamp()),
        "text": found.text,
    }
