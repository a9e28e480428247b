"""`guardfleet evaluate` and its options: of the guard on labelled rows, of a detector, or of a job's stored verdicts."""

from typing import Annotated, Any

import typer

from guardfleet.cli.detector_labels import Asked
from guardfleet.cli.input_options import reading_of
from guardfleet.cli.options import Model, takes
from guardfleet.errors import RejectedError
from guardfleet.settings import load_settings

LabelField = Annotated[
    str | None,
    typer.Option(
        "--label-field", metavar="PATH", help="Where a row has the detector's label: labels.ai_generated; by default label."
    ),
]
Positive = Annotated[
    str | None,
    typer.Option("--positive", metavar="LABEL", help="The label that `true` means, and that --fpr chooses a threshold for."),
]
Rates = Annotated[
    list[float] | None,
    typer.Option("--fpr", metavar="RATE", help="Choose a threshold that flags at most this share of the others: 0.01. Repeatable."),
]
Negatives = Annotated[
    bool, typer.Option("--negatives", help="No row has the positive label, and none needs a label: human texts, say, for --fpr.")
]
By = Annotated[
    list[str] | None, typer.Option("--by", metavar="PATH", help="Slice the thresholds' figures by this member too. Repeatable.")
]


MapPerspective = Annotated[
    bool,
    typer.Option("--map-perspective", help="Rows have Perspective's scores (TOXICITY, ...): fit a map that keeps flag rates."),
]
Thresholds = Annotated[
    list[float] | None,
    typer.Option(
        "--threshold", metavar="SCORE", min=0, max=1, help="Of Perspective's scores; 0.5 to 0.9 if not given. Repeatable."
    ),
]
Output = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="Write Perspective's map, for GUARDFLEET_API__PERSPECTIVE_MAP.")
]


def asked_of_detector(
    label_field: LabelField = None, positive: Positive = None, fpr: Rates = None, negatives: Negatives = False, by: By = None
) -> Asked | None:
    """Build what is asked of a detector; None if nothing is. Raises RejectedError."""
    if label_field is positive is None and not (fpr or negatives or by):
        return None
    return Asked.of(label_field, positive, fpr or (), negatives=negatives, by=by or ())


@takes(reading=reading_of, asked=asked_of_detector)
def evaluate(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE...]", help="Rows with a label (safe, unsafe); - for stdin.")
    ] = None,
    job: Annotated[
        str | None,
        typer.Option("--job", metavar="JOB", help="Instead of a file: this job's verdicts, by the labels of its samples."),
    ] = None,
    tenant: Annotated[str, typer.Option("--tenant", help="Whose job.")] = "default",
    model: Model = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Use only the first N labelled rows.")] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="Judge again in this precision (bfloat16, int8, ...) and report the agreement."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
    csv: Annotated[str | None, typer.Option("--csv", metavar="FILE", help="Write the figures by category too.")] = None,
    detector: Annotated[
        str | None,
        typer.Option("--detector", metavar="NAME", help="Judge as this detector, such as ai-text, instead of as the guard."),
    ] = None,
    map_perspective: MapPerspective = False,
    thresholds: Thresholds = None,
    output: Output = None,
    asked: Any = None,
    reading: Any = None,
) -> int:
    """Measure precision, recall, F1 and false-positive rate: on labelled rows, without services; or of a job, by its labels."""
    if (job is None) == (not sources):
        raise RejectedError("give a file with labelled rows, or --job JOB, one of them.")
    if detector is None and asked is not None:
        raise RejectedError("--label-field, --positive, --fpr, --negatives and --by are for a detector: name it with --detector.")
    if (thresholds or output) and not map_perspective:
        raise RejectedError("--threshold and --output are for --map-perspective.")
    if map_perspective and (job is not None or detector is not None or against or csv):
        raise RejectedError(
            "--map-perspective is for rows that Perspective has scored: leave out --job, --detector, --against and --csv."
        )
    if job is not None:
        from guardfleet.cli.commands import evaluate_job

        if model or limit or against or csv or detector:
            raise RejectedError("--job evaluates stored verdicts: --model, --limit, --against, --csv and --detector are for files.")
        return evaluate_job.evaluate(load_settings(), job, tenant=tenant, as_json=as_json)
    from guardfleet.cli.commands import evaluate as command
    from guardfleet.telemetry import logs

    settings = load_settings(model=model)
    logs.configure(settings.but(log_format="console"), process="evaluate")
    if detector is not None:
        from guardfleet.cli.commands import evaluate_detector

        if against or csv:
            raise RejectedError("--against and --csv are for the guard: leave them out with --detector.")
        return evaluate_detector.evaluate(settings, sources or [], reading, detector, asked, limit=limit, as_json=as_json)
    if map_perspective:
        from guardfleet.cli.commands import evaluate_perspective

        return evaluate_perspective.evaluate(
            settings, sources or [], reading, thresholds or (), output=output, limit=limit, as_json=as_json
        )
    return command.evaluate(settings, sources or [], reading, limit=limit, against=against, as_json=as_json, csv_path=csv)
