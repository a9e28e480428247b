"""What is answered instead: a problem."""

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from api.schemas.base import Answer, may_lack


class ProblemObject(Answer):
    """The error as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None
    code: str


class Fault(Answer):
    """One thing that is wrong with a document."""

    line: int | None
    where: str = Field(examples=["rules[0].when.category[0]"])
    cause: str


class Problem(Answer):
    """RFC 9457, with the `error` object that OpenAI's clients read."""

    type: str = Field(examples=["urn:guardfleet:problem:not_found"])
    title: str
    status: int
    detail: str
    error: ProblemObject
    problems: list[Fault] | SkipJsonSchema[None] = may_lack(
        "Everything that is wrong with a policy (`invalid_policy`) or a list (`invalid_list`)."
    )
