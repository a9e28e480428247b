"""Read a policy from a body: YAML or JSON, by its content type, and no more of it than a policy may have."""

from fastapi import Request
from pydantic.json_schema import models_json_schema

from api.body.whole_body import kind_of, received
from api.context import Context
from api.http.problems import ProblemError
from api.http.threads import beside
from guardfleet.policy import reading
from guardfleet.policy.document import Policy

KINDS = ("application/json", "application/yaml", "application/x-yaml", "text/yaml")
_, _SCHEMAS = models_json_schema([(Policy, "validation")], ref_template="#/components/schemas/{model}")
SCHEMAS = _SCHEMAS["$defs"]  # the route reads the body itself, so the framework does not know them
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            KINDS[0]: {"schema": {"$ref": "#/components/schemas/Policy"}},
            **{kind: {"schema": {"type": "string"}} for kind in KINDS[1:]},
        },
    }
}


async def text_of(request: Request) -> str:
    """Return the document as it was sent. Raises ProblemError for another content type, too many bytes, or none of UTF-8."""
    if kind_of(request) not in KINDS:
        raise ProblemError(415, "unsupported_content_type", f"send the policy as {' or '.join(KINDS[:2])}.")
    body = await received(request, most=reading.MOST_BYTES, what="a policy")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ProblemError(400, "invalid_encoding", "a policy must be in UTF-8.") from None


async def policy_of(context: Context, text: str) -> Policy:
    """Return the policy that the text is. Raises PolicyError with everything that is wrong with it."""
    return await beside(context.body_threads, reading.read, text)
