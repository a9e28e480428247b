"""Read a policy from YAML or JSON, and say of everything that is wrong in which line it stands."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import yaml
from pydantic import ValidationError

from guardfleet.errors import RejectedError
from guardfleet.policy.document import Policy
from guardfleet.policy.soundness import unsound

MOST_BYTES = 1 << 18
MOST_DEPTH = 20
MOST_TOLD = 50
MOST_PROBLEMS = 1000  # that are kept of one document
MOST_NAME = 64  # characters of a key, where a place is named
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, where in the document, and in which line of its text; line 0: there is none."""

    line: int
    where: str
    cause: str

    def __str__(self) -> str:
        """Return it as one line."""
        at = f"line {self.line}: " if self.line else ""
        return f"{at}{self.where}: {self.cause}" if self.where else f"{at}{self.cause}"


class PolicyError(RejectedError):
    """A policy that cannot be used, with all its problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems[:MOST_PROBLEMS])
        told = [str(problem) for problem in self.problems[:MOST_TOLD]]
        left = len(problems) - len(told)
        super().__init__("\n".join([*told, *([f"and {left} more"] if left else [])]), param="policy")


Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, seven times as fast, where PyYAML has it


class _Loader(Parser):  # type: ignore[misc]
    """YAML without what surprises: `no` is a language and no boolean, 1:30 no number, a date a text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("null", "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


TAG = "tag:yaml.org,2002:"
PAIR = re.compile(r"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})")  # of escapes, as JSON has them
NUMBER = r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|[-+]?[0-9]+[eE][-+]?[0-9]+$"
_Loader.add_implicit_resolver(f"{TAG}bool", re.compile(r"(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver(f"{TAG}int", re.compile(r"[-+]?[0-9]{1,18}$"), list("-+0123456789"))
_Loader.add_implicit_resolver(f"{TAG}float", re.compile(NUMBER), list("-+0123456789."))
_Loader.add_constructor(f"{TAG}int", _integer)
RESOLVERS = _Loader.yaml_implicit_resolvers  # what is read as more than a word


def read(text: str) -> Policy:
    """Return the policy that the text is. Raises PolicyError with everything that is wrong with it."""
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise PolicyError([Problem(0, "", f"a policy has at most {MOST_BYTES:,} bytes")])
    if text.lstrip("\ufeff \t\r\n").startswith("{"):  # JSON, which may be indented with tabs
        text = re.sub(r"(?m)^[ \t]+", lambda found: found[0].expandtabs(2), text)
        text = PAIR.sub(lambda found: found[1] + json.loads(f'"{found[2]}"'), text)
    node = _composed(text)
    lines: dict[Place, int] = {}
    problems = list(islice(_unlike_json(node, (), lines), MOST_PROBLEMS))
    if problems:
        raise PolicyError(problems)
    loader = _Loader("")
    try:
        value = _valid(loader.construct_document(node))
    except (yaml.YAMLError, ValueError) as error:
        raise PolicyError([_of_yaml(error)]) from None
    return of_value(value, lines)


def of_value(value: Any, lines: Mapping[Place, int] | None = None) -> Policy:
    """Return the policy that a parsed document is. Raises PolicyError; `lines` says where each part of it stands."""
    known = lines or {}
    if not isinstance(value, dict):
        raise PolicyError([Problem(_line(known, ()), "", "a policy is a mapping with `name`, `default` and `rules`")])
    try:
        policy = Policy.model_validate(value)
    except ValidationError as error:
        raise PolicyError([_of_pydantic(one, known) for one in error.errors()]) from None
    if wrong := [Problem(_line(known, place), _named(place), cause) for place, cause in unsound(policy)]:
        raise PolicyError(wrong)
    return policy


def _composed(text: str) -> yaml.Node:
    try:
        depth = 0
        for event in yaml.parse(text, Loader=Parser):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_DEPTH:
                raise PolicyError([Problem(_line_of(event.start_mark), "", f"it is nested deeper than {MOST_DEPTH}")])
            if isinstance(event, yaml.AliasEvent):
                raise PolicyError([Problem(_line_of(event.start_mark), "", "aliases (*name) are not taken: write it out")])
        node = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise PolicyError([_of_yaml(error)]) from None
    if node is None:
        raise PolicyError([Problem(0, "", "there is nothing in it: a policy has `name`, `default` and `rules`")])
    return node


def _valid(value: Any) -> Any:
    """Return the value with its texts as they can be stored: JSON writes what is beyond 16 bits as a pair of escapes."""
    if isinstance(value, dict):
        return {_valid(key): _valid(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_valid(one) for one in value]
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a text of it holds NUL")
        return value.encode("utf-16", "surrogatepass").decode("utf-16")
    return value


def _unlike_json(node: yaml.Node, place: Place, lines: dict[Place, int]) -> Any:
    """Note the line of each part; yield what JSON could not say either: keys that come twice or are no text."""
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen = set[str]()
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None or key.tag.endswith(":merge"):
                yield Problem(key.start_mark.line + 1, _named(place), "a key is a word")
                continue
            if name in seen:
                yield Problem(key.start_mark.line + 1, _named((*place, name)), "it stands here twice")
            seen.add(name)
            yield from _unlike_json(value, (*place, name), lines)
            lines[(*place, name)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for at, value in enumerate(node.value):
            yield from _unlike_json(value, (*place, at), lines)


def _line_of(mark: Any) -> int:
    return 0 if mark is None else int(mark.line) + 1


def _of_yaml(error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None)
    cause = getattr(error, "problem", None) or (str(error) if isinstance(error, ValueError) else "it cannot be read")
    return Problem(_line_of(mark), "", f"no YAML and no JSON: {cause}")


def _of_pydantic(error: Any, lines: Mapping[Place, int]) -> Problem:
    place = tuple(part for part in error["loc"] if not str(part).startswith(("list[", "constrained", "function-", "nullable")))
    given = error.get("input")
    kind = error["type"]
    if kind == "missing":
        cause = "it is missing"
    elif kind == "extra_forbidden":
        cause = "this is not known here"
    elif kind == "less_than_equal" and isinstance(given, int | float) and 1 < given <= 100:  # noqa: PLR2004
        cause = f"{given:g} is no probability: write {given / 100:g} for {given:g} %"
    else:
        cause = str(error["msg"]).removeprefix("Value error, ")
        if isinstance(given, str | int | float) and kind != "value_error":
            cause = f"{str(given)[:80]!r}: {cause[:1].lower()}{cause[1:]}"
    return Problem(_line(lines, place), _named(place), cause)


def _line(lines: Mapping[Place, int], place: Place) -> int:
    """Return the line of the part, or of the nearest around it."""
    return next((lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in lines), 0)


def _named(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part[:MOST_NAME]}" for part in place).removeprefix(".")
