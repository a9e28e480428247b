"""What `guardfleet evaluate --detector` says: tables for people, one JSON object for programs, a line for a policy."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from guardfleet.cli import terminal
from guardfleet.cli.detector_evaluation import Chosen, Figures, Labelled
from guardfleet.cli.evaluation import FIGURES
from guardfleet.domain.detection import Outcome
from guardfleet.domain.verdict import Model
from guardfleet.sampling.estimates import Estimate
from guardfleet.sampling.thresholds import Cut, needed, written

PER = 1_000_000  # texts, for which false flags are told
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def said_of(model: Model) -> str:
    """Return a model's name and revision as they are shown."""
    return model.label + (", a demo" if model.is_demo else "")


def show(
    texts: Labelled, figures: Mapping[str, Figures], cuts: Sequence[Chosen], positive: str | None, seconds: float, *, to: Console
) -> None:
    """Print the figures by label, and each threshold with what it does, over all texts and by slice."""
    n = len(texts.truths)
    title = f"{texts.model.detector}: {said_of(texts.model)} on {n:,} texts" + ("" if figures else ", none of them labelled")
    if figures:
        terminal.say(_by_label(texts, figures, title), to=to)
    else:
        terminal.say(title, to=to)
    short, errors = texts.count(Outcome.TOO_SHORT), texts.count(Outcome.ERROR)
    wrong = "counted as wrong above" if figures else "without a score"
    terminal.say(f"{short:,} too short to say, {errors:,} errors, {wrong}; {seconds:.1f} s including loading the model", to=to)
    for one in cuts:
        terminal.say(_by_slice(one, str(positive)), to=to)
        terminal.say(_meaning(one.cut, str(positive)), to=to)
        if one.small:
            terminal.say(f"slices with too few texts, which are not listed: {one.small}", to=to)
    for one in cuts:
        if one.cut.is_telling and one.cut.threshold is not None:
            terminal.say(f"for a policy: {policy_line(texts.model.detector, str(positive), one.cut)}", to=to)


def _by_label(texts: Labelled, figures: Mapping[str, Figures], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("label", "texts", "precision", "recall", "F1", "false positive rate", "AUROC"):
        table.add_column(column, justify="left" if column == "label" else "right")
    for label, one in figures.items():
        cells = [*(getattr(one.counts, name) for name in FIGURES), one.auroc]
        table.add_row(label, f"{texts.has(label).sum():,}", *("undefined" if cell is None else f"{cell:.3f}" for cell in cells))
    return table


def _by_slice(one: Chosen, positive: str) -> Table:
    """Build the table of what the one threshold does, in all texts and by slice."""
    least = "none" if one.cut.threshold is None else written(one.cut.threshold)
    title = f"{positive} at_least {least}: a false-positive rate of {one.cut.rate:g} at most"
    table = Table(title=title, title_justify="left")
    for column in ("slice", f"not {positive}", "false positive rate", positive, "true positive rate", "own threshold"):
        table.add_column(column, justify="left" if column == "slice" else "right")
    for name, cut, own in [("all", one.cut, None), *((f"{s.kind} {s.value}", s.cut, s.own) for s in one.slices)]:
        rates = [_between(cut.false_positive_rate), _between(cut.true_positive_rate)]
        few = "" if name == "all" else "too few"
        table.add_row(name, f"{cut.negatives:,}", rates[0], f"{cut.positives:,}", rates[1], few if own is None else written(own))
    return table


def _between(share: Estimate | None) -> str:
    return "" if share is None else f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"


def _meaning(cut: Cut, positive: str) -> str:
    """Return in words what a threshold is worth."""
    if not cut.is_telling:
        return (
            f"{cut.negatives:,} texts that are not {positive} have a score; a false-positive rate of {cut.rate:g} takes "
            f"{needed(cut.rate):,} to be told from a greater one: take this threshold for a guess, it is in no line for a policy."
        )
    if cut.threshold is None:
        return f"no threshold keeps to it: more than {cut.rate:g} of the texts that are not {positive} have the highest score."
    rate = cut.false_positive_rate
    flags = [float(f"{share * PER:.2g}") for share in rate] if rate else []  # two digits: no more is known
    said = "about {:,.0f} would be flagged (95 %: {:,.0f} to {:,.0f}).".format(*flags)
    return f"of {PER:,} texts like these that are not {positive}, {said}"


def policy_line(detector: str, label: str, cut: Cut) -> str:
    """Return the condition of a policy's rule that holds from the threshold on."""
    if cut.threshold is None:
        raise ValueError("there is no threshold")
    condition = f"{{detectors: {{{_quoted(detector)}: {{scores: {{{_quoted(label)}: {{at_least: {written(cut.threshold)}}}}}}}}}}}"
    return f"when: {condition}  # false-positive rate {cut.rate:g}"


def _quoted(name: str) -> str:
    """Return a name as YAML reads it: some words, such as `no`, are none of its texts unless they are quoted."""
    return name if PLAIN.fullmatch(name) and yaml.safe_load(name) == name else json.dumps(name)


def as_dict(texts: Labelled, figures: Mapping[str, Figures], cuts: Sequence[Chosen], positive: str | None) -> dict[str, Any]:
    """Return the figures as one JSON object; `asked` and `at_least` are of each threshold, None where there is none."""
    model = texts.model
    labels = {
        label: {
            "texts": int(texts.has(label).sum()),
            **asdict(one.counts),
            **{name: _rounded(getattr(one.counts, name)) for name in FIGURES},
            "auroc": _rounded(one.auroc),
        }
        for label, one in figures.items()
    }
    ended = {outcome.label: texts.count(outcome) for outcome in Outcome}
    thresholds = [
        {**_cut(one.cut), "slices": [{"by": s.kind, "value": s.value, **_cut(s.cut), "own": s.own} for s in one.slices]}
        for one in cuts
    ]
    identity = {"detector": model.detector, "model": said_of(model), "is_demo": model.is_demo}
    return {
        **identity,
        "texts": len(texts.truths),
        "outcomes": ended,
        "labels": labels,
        "positive": positive,
        "thresholds": thresholds,
    }


def _cut(cut: Cut) -> dict[str, Any]:
    return {
        "asked": cut.rate,
        "at_least": cut.threshold,
        "negatives": cut.negatives,
        "negatives_needed": needed(cut.rate),
        "is_telling": cut.is_telling,
        "positives": cut.positives,
        "false_positive_rate": cut.false_positive_rate and cut.false_positive_rate.as_dict(),
        "true_positive_rate": cut.true_positive_rate and cut.true_positive_rate.as_dict(),
    }


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 4)
