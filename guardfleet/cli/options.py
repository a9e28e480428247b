"""Options that several commands share, declared once as parameters of a maker; the command gets what the maker returns."""

import functools
import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from guardfleet.cli import terminal
from guardfleet.domain.options import OLD_NAMES, JobOptions
from guardfleet.errors import RejectedError

Secret = Annotated[
    str | None, typer.Option("--callback-secret", help="Secret that signs the webhook, whsec_...; by default made and printed.")
]
Model = Annotated[str | None, typer.Option("--model", help="Model: demo, a folder, or Qwen/Qwen3Guard-Gen-0.6B (4B, 8B).")]
OLD_FLAGS = {**{old: new for old, new in OLD_NAMES.items() if old not in ("purge_hours", "second_model")}, "then": "escalate_to"}
ALIASES = {"detectors": ("--detector",), "detector_cascades": ("--escalate-detector",)}
AS_JSON = ("metadata", "webhook_metadata")


def job_options(*without: str) -> Callable[..., JobOptions]:
    """Return a maker of `JobOptions` with an option for each field except `without`, and hidden ones for old names."""
    fields = {name: field for name, field in JobOptions.model_fields.items() if name not in without}
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(name)) for name in fields
    ]
    for old, new in OLD_FLAGS.items():
        if new in fields:
            parameters.append(inspect.Parameter(old, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_hidden(old, new)))

    def make(**given: Any) -> JobOptions:
        asked = {name: value for name, value in given.items() if value is not None}
        for old in OLD_FLAGS.keys() & asked.keys():
            new = OLD_FLAGS[old]
            no = "no-" if asked[old] is False else ""
            terminal.say(f"--{no}{_flag(old)} is deprecated and goes with the next version: use --{no}{_flag(new)}.")
            if new in asked:
                raise RejectedError(f"--{_flag(old)} is the old name of --{_flag(new)}: give only one of them.")
            asked[new] = asked.pop(old)
        return JobOptions.of(**asked | {name: _json(name, asked[name]) for name in AS_JSON if name in asked})

    make.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return make


def _option(name: str) -> Any:
    field = JobOptions.model_fields[name]
    flag = f"--{_flag(name)}"
    help_text = (field.description or "") + (" As JSON." if name in AS_JSON else "") + _default(field.default)
    spelled = f"{flag}/--no-{_flag(name)}" if field.default is True else flag
    return Annotated[_type(name), typer.Option(spelled, *ALIASES.get(name, ()), help=help_text)]


def _hidden(old: str, new: str) -> Any:
    spelled = f"--{old}/--no-{old}" if JobOptions.model_fields[new].default is True else f"--{_flag(old)}"
    return Annotated[_type(new), typer.Option(spelled, hidden=True)]


def _type(name: str) -> Any:
    """Return the type of an option's value on the command line, with None for an option that is not given."""
    default = JobOptions.model_fields[name].default
    kinds = {"text_retention_hours": float}
    return (type(default) if default is not None else kinds.get(name, str)) | None


def _default(value: object) -> str:
    if value is True:
        return " (default)"
    return f" (default: {value})" if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _json(name: str, value: str) -> dict[str, Any]:
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RejectedError(f'--{_flag(name)} must be a JSON object, such as \'{{"team": "safety"}}\'.', param=name)
    return found


def takes(**makers: Callable[..., Any]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command, instead of each parameter named here, the options that its maker takes."""
    asked = {name: inspect.signature(maker, eval_str=True).parameters for name, maker in makers.items()}

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(command)
        def run(**given: Any) -> int:
            made = {name: maker(**{option: given.pop(option) for option in asked[name]}) for name, maker in makers.items()}
            return command(**given, **made)

        found: list[inspect.Parameter] = []
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
            found.extend(asked.get(name, {name: parameter}).values())
        named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in found]
        run.__signature__ = inspect.Signature(named, return_annotation=int)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in named}
        return run

    return decorate
