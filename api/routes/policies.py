"""Policies: what to do with verdicts. Their versions, checked, stored, tried on what is stored, applied and applied no longer."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from api.body.policy_document import BODY, policy_of, text_of
from api.context import AppContext, Context, PoliciesReader, PoliciesWriter
from api.http.header_parameters import IDEMPOTENCY_KEY, PREFER, reads
from api.http.idempotency import Once
from api.http.long_requests import wait_s
from api.http.pages import page_of_versions
from api.http.problems import ProblemError
from api.http.threads import beside, in_thread
from api.schemas.base import answer
from api.schemas.policies import ActivatedPolicy, PolicyCheck, PolicyPage, PolicySummary, PolicyTest, PolicyVersion
from api.services.policy_passes import LONGEST_PASS_S, PASS_S, PER_HOUR, place_of, tried
from api.services.stored_scope import scope_of
from guardfleet.errors import NotFoundError
from guardfleet.jobs.redecide import ready
from guardfleet.policy import presets
from guardfleet.policy.document import Policy
from guardfleet.store import models
from guardfleet.store.keys import Caller
from guardfleet.store.policy import lists, policies
from guardfleet.store.policy.policies import Version

router = APIRouter(prefix="/v1/policies", tags=["policies"])

Name = Annotated[str, Path(max_length=100)]
Number = Annotated[int, Path(ge=1, lt=10**9)]


@router.post("/check", operation_id="checkPolicy", responses=answer(PolicyCheck), openapi_extra=BODY)
async def check(request: Request, context: AppContext, caller: PoliciesReader) -> dict[str, Any]:
    """Check a policy in JSON or YAML; nothing is stored. 422 `invalid_policy` lists all `problems`, each with its line."""
    del caller
    policy = await policy_of(context, await text_of(request))
    return {"object": "policy.check", "valid": True, **_about(policy.name, policy.shadow, len(policy.rules))}


@router.get("/schema", operation_id="retrievePolicySchema")
async def schema(caller: PoliciesReader) -> dict[str, Any]:
    """Return the JSON schema of a policy."""
    del caller
    return Policy.model_json_schema()


@router.get(
    "/presets/{preset}",
    operation_id="retrievePolicyPreset",
    response_class=Response,
    responses={200: {"content": {"application/yaml": {}}}},
)
async def preset(preset: str, caller: PoliciesReader) -> Response:
    """Return a policy to begin with, in YAML: `strict` or `loose`."""
    del caller
    if preset not in presets.PRESETS:
        raise NotFoundError(f"there is no such preset: use one of {', '.join(presets.PRESETS)}.")
    return Response(presets.text(preset), media_type="application/yaml")


@router.post("/test", operation_id="testPolicy", responses=answer(PolicyTest), openapi_extra=BODY | reads(PREFER))
async def try_out(
    request: Request,
    context: AppContext,
    caller: PoliciesReader,
    batch_id: Annotated[str | None, Query(max_length=100, description="The texts of this batch.")] = None,
    since: Annotated[float | None, Query(ge=0, le=1e11, description="The texts of all batches since this Unix time.")] = None,
    reviews_per_hour: Annotated[float, Query(gt=0, le=1e6, description="Texts that a reviewer decides in an hour.")] = PER_HOUR,
    after: Annotated[str | None, Query(max_length=100, description="`next` of an answer that was not complete.")] = None,
) -> dict[str, Any]:
    """Say what a policy would change of stored verdicts; nothing is written.

    Until `complete`, send the same with `next` as `after`, and add up the counts. `Prefer: wait=N`: up to N s a request
    (10, at most 30).
    """
    policy = await policy_of(context, await text_of(request))
    scope = await in_thread(scope_of, context.db, caller.tenant_id, batch_id, since)
    start = await in_thread(place_of, context.db, scope, after)
    seconds = wait_s(request, otherwise=PASS_S, longest=LONGEST_PASS_S)
    with context.passes.taken(caller.key_id):
        return await beside(context.pass_threads, tried, context.db, policy, scope, start, seconds, reviews_per_hour)


@router.post(
    "",
    operation_id="createPolicy",
    openapi_extra=BODY | reads(IDEMPOTENCY_KEY),
    responses=answer(PolicyVersion) | answer(PolicyVersion, status=201, description="A new version."),
)
async def create(request: Request, context: AppContext, caller: PoliciesWriter) -> Response:
    """Store a policy as the next version of its name: 201. One equal to its newest version is that one: 200.

    `unknown_lists`: those that it asks for and that are not stored; `unknown_detectors`: those that no worker has ever served.
    """
    text = await text_of(request)
    policy = await policy_of(context, text)
    async with Once.of(request, context.db, caller, text.encode()) as once:
        if once.earlier is not None:
            return JSONResponse(policy_object(await in_thread(policies.get, context.db, caller.tenant_id, once.earlier)))
        made, is_new = await in_thread(policies.add, context.db, caller.tenant_id, policy, also=once.recording())
        unknown = await in_thread(lists.unknown, context.db, caller.tenant_id, policy.lists)
        unserved = await in_thread(models.unknown_detectors, context.db, policy.detectors)
        beside = {"unknown_lists": unknown, "unknown_detectors": unserved}
        return JSONResponse(policy_object(made) | beside, 201 if is_new else 200)


@router.get("", operation_id="listPolicies", responses=answer(PolicyPage))
async def listing(
    context: AppContext,
    caller: PoliciesReader,
    after: Annotated[str | None, Query(max_length=100, description="`last_id` of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """List all versions of your policies, newest first, without documents; `active` and `shadow` name those that are applied."""
    page = await page_of_versions(policies.page, _without_document, context.db, caller, after=after, limit=limit, what="policies")
    return page | await in_thread(policies.applied_labels, context.db, caller.tenant_id)


@router.get("/{name}@{version}", operation_id="retrievePolicy", responses=answer(PolicyVersion))
async def retrieve(name: Name, version: Number, context: AppContext, caller: PoliciesReader) -> dict[str, Any]:
    """Return a version with its document."""
    return policy_object(await _version(context, caller, name, version))


@router.post("/{name}@{version}/activate", operation_id="activatePolicy", responses=answer(ActivatedPolicy))
async def activate(name: Name, version: Number, context: AppContext, caller: PoliciesWriter) -> dict[str, Any]:
    """Apply a version from now on, in place of the one in `replaced`. Going back is activating the old one."""
    found = await _version(context, caller, name, version)
    await in_thread(ready, found)
    before = await in_thread(policies.activate, context.db, found)
    unknown = await in_thread(lists.unknown, context.db, caller.tenant_id, found.policy.lists)
    unserved = await in_thread(models.unknown_detectors, context.db, found.policy.detectors)
    beside = {"replaced": before, "unknown_lists": unknown, "unknown_detectors": unserved}
    return _without_document(await _version(context, caller, name, version)) | beside


@router.post("/{name}@{version}/deactivate", operation_id="deactivatePolicy", responses=answer(PolicySummary))
async def deactivate(name: Name, version: Number, context: AppContext, caller: PoliciesWriter) -> dict[str, Any]:
    """Apply a version no longer; what it decided stays. 409 if it is not applied."""
    found = await _version(context, caller, name, version)
    if not await in_thread(policies.deactivate, context.db, found):
        raise ProblemError(409, "policy_not_active", f"{found.label} is not active.", headers={"x-should-retry": "false"})
    return _without_document(await _version(context, caller, name, version))


async def _version(context: Context, caller: Caller, name: str, version: int) -> Version:
    return await in_thread(policies.get, context.db, caller.tenant_id, f"{name}@{version}")


def policy_object(found: Version) -> dict[str, Any]:
    """Return a version with its document."""
    return _without_document(found) | {"document": found.document}


def _without_document(found: Version) -> dict[str, Any]:
    return {
        "id": found.label,
        "object": "policy",
        "version": found.version,
        "active": bool(found.is_active),
        "created_at": int(found.created_at.timestamp()),
        **_about(found.name, found.shadow, found.n_rules),
    }


def _about(name: str, shadow: bool, n_rules: int) -> dict[str, Any]:
    return {"name": name, "shadow": shadow, "rules": n_rules}
