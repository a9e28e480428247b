"""Options that several commands share, declared once: the parameters of a maker. The command takes what that makes of them."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import typer

from guardfleet.domain.options import DEFAULT_PLAN, Plan

Then = Annotated[str | None, typer.Option("--then", help="A second model, for texts that the first is not sure of.")]
Sure = Annotated[float, typer.Option("--sure", help="Probability of its severity from which the first model's word is final.")]
Sample = Annotated[float, typer.Option("--sample", help="Share of the others that the second is asked too, to compare.")]
LongTexts = Annotated[
    str | None, typer.Option("--long-texts", help="Of texts longer than a window, judge all windows, or only head, tail or ends.")
]
Url = Annotated[str | None, typer.Option("--callback-url", help="Where a signed webhook goes when the job ends.")]
Secret = Annotated[
    str | None, typer.Option("--callback-secret", help="Its signing secret, whsec_...; made and printed if left out.")
]


class Callback(NamedTuple):
    """Whom to tell when the job ends."""

    callback_url: str | None
    callback_secret: str | None


def plan_of(
    then: Then = None, sure: Sure = DEFAULT_PLAN.sure, sample: Sample = DEFAULT_PLAN.sample, long_texts: LongTexts = None
) -> Plan:
    """How texts are to be judged; the first model is the command's own business."""
    return Plan(None, then, sure, sample, long_texts)


def callback_of(callback_url: Url = None, callback_secret: Secret = None) -> Callback:
    """Whom to tell."""
    return Callback(callback_url, callback_secret)


def takes(**makers: Callable[..., Any]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command, in place of each parameter named here, the options that its maker takes."""
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
