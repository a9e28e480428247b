"""`guardfleet plan`: what a job would need, before it is submitted."""

from typing import TYPE_CHECKING, Annotated

import typer

from guardfleet.settings import load_settings

if TYPE_CHECKING:
    from guardfleet.domain.capacity import Figure, Load


def plan(
    texts: Annotated[str, typer.Option("--texts", metavar="N", help="How many texts: 200000, 1.5k, 50M, 2G.")],
    tokens_p50: Annotated[float | None, typer.Option("--tokens-p50", help="Tokens of the median text.")] = None,
    tokens_mean: Annotated[float | None, typer.Option("--tokens-mean", help="Tokens of a text on average, if known.")] = None,
    gpu: Annotated[str, typer.Option("--gpu", help="h200, h100, a100, l40s, l4, a10g, or cpu (2 cores).")] = "h100",
    model: Annotated[str, typer.Option("--model", help="0.6B, 4B or 8B.")] = "8B",
    deadline: Annotated[str, typer.Option("--deadline", help="Time until the last verdict: 90m, 8h, 2d.")] = "8h",
    price: Annotated[
        float | None,
        typer.Option("--price-per-gpu-hour", help="Price of a device's hour (default: GUARDFLEET_PRICE_PER_DEVICE_HOUR)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Estimate devices, hours, cost and storage for a job, and say of each figure whether it was measured."""
    from guardfleet.domain import capacity

    settings = load_settings()
    load = capacity.Load(
        texts=capacity.count_of(texts),
        tokens=capacity.tokens_of(tokens_p50, tokens_mean),
        gpu=gpu.lower(),
        model=model.removeprefix("Qwen/Qwen3Guard-Gen-"),
        deadline_s=capacity.seconds_of(deadline),
        shard_texts=settings.intake.shard_texts,
        price=settings.price_per_device_hour if price is None else price,
    )
    found = capacity.plan(load)
    _as_json(load, found) if as_json else _as_table(found)
    return 0


def _as_json(load: "Load", found: "list[Figure]") -> None:
    import json
    from dataclasses import asdict

    figures = {one.name: {"value": one.value, "unit": one.unit, "basis": one.basis, "why": one.why} for one in found}
    print(json.dumps({"load": asdict(load), "figures": figures}))


def _as_table(found: "list[Figure]") -> None:
    from guardfleet.cli import terminal

    for one in found:
        unit = f" {one.unit}" if one.unit else ""
        shown = f"{one.value:,.0f}" if float(one.value).is_integer() or one.value >= 1000 else f"{one.value:,.3g}"  # noqa: PLR2004
        terminal.say(f"{one.name.replace('_', ' ')}: {shown}{unit}  [{one.basis}]", to=terminal.answers)
        terminal.say(f"    {one.why}", to=terminal.answers)
