"""What a job needs: devices, hours, money, database, broker; each figure with its basis. Pure arithmetic over `rates`."""

import math
import re
from dataclasses import dataclass

from guardfleet.domain import rates
from guardfleet.domain.rates import DEVICES, MODELS
from guardfleet.errors import RejectedError

COUNT = re.compile(r"(\d{1,15}|\d{1,3}(?:[,_]\d{3}){1,4})(\.\d{1,6})?([kmgb]?)", re.IGNORECASE)
TIME = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])")
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MOST_TEXTS, MOST_TOKENS, MOST_PRICE = 10**13, 10**6, 10**6
MEASURED, ESTIMATED = "measured", "estimated"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the plan; `basis` says whether it was measured, `why` in which file or by which formula."""

    name: str
    value: float
    unit: str
    basis: str
    why: str


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be planned: `tokens` of a text on average, `price` of a device's hour."""

    texts: int
    tokens: float
    gpu: str
    model: str
    deadline_s: float
    shard_texts: int
    price: float | None = None


def count_of(typed: str) -> int:
    """Parse a number of texts: 50M, 1.5k, 200000. Raises RejectedError."""
    found = COUNT.fullmatch(typed.strip())
    n = round(float(re.sub("[,_]", "", found[1]) + (found[2] or "")) * UNITS[found[3].lower()]) if found else 0
    if not 1 <= n <= MOST_TEXTS:
        raise RejectedError(f"texts cannot be {typed!r}: give a number from 1 on, such as 200000, 1.5k, 50M or 2G.", param="texts")
    return n


def seconds_of(typed: str) -> float:
    """Parse a time: 90m, 8h, 2d. Raises RejectedError."""
    found = TIME.fullmatch(typed.strip())
    seconds = float(found[1]) * SECONDS[found[2]] if found else 0.0
    if seconds <= rates.LOAD_S:
        least = f"more than {rates.LOAD_S:g} s, in which a model is loaded"
        raise RejectedError(f"deadline cannot be {typed!r}: give a time with s, m, h or d, such as 8h; {least}.", param="deadline")
    return seconds


def tokens_of(p50: float | None, mean: float | None) -> float:
    """Return the tokens of a text on average. Raises RejectedError for less than one, without either, or for both."""
    if p50 is not None and mean is not None:
        raise RejectedError("give --tokens-p50 or --tokens-mean, not both: the mean is what is reckoned with.", param="tokens_p50")
    given = mean if mean is not None else p50
    if given is None or not 1 <= given <= MOST_TOKENS:
        raise RejectedError(
            f"the length of a text is needed in tokens: give --tokens-p50 or --tokens-mean, from 1 to {MOST_TOKENS:,}"
            + ("." if given is None else f", and not {given!r}."),
            param="tokens_p50",
        )
    return given if mean is not None else given * rates.MEAN_OF_P50


def check(load: Load) -> Load:
    """Return the load. Raises RejectedError for an unknown model or device, or a price that is none."""
    for name, given, known in (("model", load.model, MODELS), ("gpu", load.gpu, DEVICES)):
        if given not in known:
            raise RejectedError(f"{name} cannot be {given!r}; use one of {', '.join(known)}.", param=name)
    if load.price is not None and not 0 <= load.price <= MOST_PRICE:
        asked = f"give the price of a device's hour, from 0 to {MOST_PRICE:,}"
        raise RejectedError(f"the price cannot be {load.price!r}: {asked}.", param="price_per_gpu_hour")
    return load


def plan(load: Load) -> list[Figure]:
    """Return the figures, the rate of one device first."""
    check(load)
    rate, rate_basis = _rate(load)
    work_s = load.deadline_s - rates.LOAD_S
    alone = math.ceil(load.texts / (rate * work_s))
    devices = alone if alone == 1 else math.ceil(load.texts / (rate * rates.SCALING * work_s))
    together = rate * devices * (rates.SCALING if devices > 1 else 1.0)
    hours = (load.texts / together + rates.LOAD_S) / 3600
    by_formula = (ESTIMATED, f"from the rate; {rates.SCALING:.1%} of it with several devices, {rates.LOAD_S:g} s to load the model")
    found = [
        Figure("texts_per_device_second", rate, "texts/s", *rate_basis),
        Figure("devices", devices, "", *by_formula),
        Figure("hours", hours, "h", *by_formula),
        Figure("device_hours", devices * hours, "h", ESTIMATED, "devices x hours"),
    ]
    if load.price is not None:
        cost = devices * hours * load.price
        found += [
            Figure("cost", cost, "", ESTIMATED, f"device hours x {load.price:g}"),
            Figure("cost_per_million_texts", cost / load.texts * 1e6, "", ESTIMATED, "cost / texts"),
        ]
    return [*found, *_services(load, together)]


def _rate(load: Load) -> tuple[float, tuple[str, str]]:
    device, shape = DEVICES[load.gpu], MODELS[load.model]
    work = rates.flops(shape, load.tokens)
    formula = (
        f"{work / 1e9:,.0f} GFLOP a text: 2 x {shape.weights / 1e9:.3f} G weights x {load.tokens:g} + 102 tokens, attention, head"
    )
    if device.measured is not None:
        is_run = load.model == "0.6B" and round(load.tokens) == rates.CPU_TOKENS
        basis = MEASURED if is_run else ESTIMATED
        return device.measured / work, (basis, f"{device.measured / 1e9:,.0f} GFLOP/s measured ({device.source}); {formula}")
    assert device.peak is not None  # noqa: S101 - a device has either
    share = rates.SHARE[load.model]
    by_flops = device.peak * rates.MATMUL * share / work
    if by_flops > rates.WORKER_TEXTS_S:
        return rates.WORKER_TEXTS_S, (ESTIMATED, f"the host of one worker is the limit ({rates.WORKER_SOURCE})")
    why = f"{device.peak / 1e12:,.0f} TFLOP/s ({device.source}) x {rates.MATMUL:g} x {share:g}, both assumed; {formula}"
    return by_flops, (ESTIMATED, why)


def _services(load: Load, texts_per_s: float) -> list[Figure]:
    """Return what the database and the broker get."""
    sealed = rates.SEALED_BYTES * load.tokens / rates.SEALED_TOKENS
    run = rates.PIPELINE_RUN
    by_length = f"{rates.SEALED_BYTES} B for {rates.SEALED_TOKENS} tokens ({run}), by length"
    return [
        Figure("verdict_bytes_per_text", rates.VERDICT_BYTES, "B", MEASURED, f"{run}; kept as long as verdicts"),
        Figure("sealed_bytes_per_text", sealed, "B", ESTIMATED, f"{by_length}; until the texts are deleted"),
        Figure("database_growth", (rates.VERDICT_BYTES + sealed) * load.texts / 1e9, "GB", ESTIMATED, "both x texts"),
        Figure("wal", rates.WAL_BYTES * load.texts / 1e9, "GB", ESTIMATED, f"{rates.WAL_BYTES} B a text measured ({run}) x texts"),
        Figure("postgres_cores", rates.POSTGRES_S * texts_per_s, "", ESTIMATED, f"19 us of a core a text measured ({run}) x rate"),
        Figure(
            "broker_messages",
            math.ceil(load.texts / load.shard_texts),
            "",
            ESTIMATED,
            f"one for each shard of {load.shard_texts:,} texts, repeats left out",
        ),
    ]
