"""`guardfleet models`: its commands and options."""

from typing import Annotated, Any

import typer

from guardfleet.cli.commands.evaluate_app import LabelField
from guardfleet.cli.input_options import reading_of
from guardfleet.cli.options import takes
from guardfleet.domain.verdict import GUARD
from guardfleet.settings import load_settings

models_app = typer.Typer(no_args_is_help=True, help="Change the model of a running fleet, try one on a share, go back.")

Name = Annotated[str, typer.Argument(metavar="MODEL", help="A hub name, a folder that all workers have, or demo.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model; default: the newest.")]
Detector = Annotated[str, typer.Option("--detector", help="Whose model.")]
OfDetector = Annotated[str, typer.Argument(metavar="[DETECTOR]", help="Whose model.")]
Label = Annotated[str | None, typer.Argument(metavar="[DEPLOYMENT]", help="As `list` names it; default: the one under way.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@models_app.command("deploy")
@takes(reading=reading_of)
def deploy(
    model: Name,
    revision: Revision = None,
    detector: Detector = GUARD,
    canary: Annotated[
        str | None, typer.Option("--canary", metavar="SHARE", help="First let it judge this share of the shards, as 5%.")
    ] = None,
    canary_texts: Annotated[int, typer.Option("--canary-texts", min=50, help="Roll it out after so many compared texts.")] = 1000,
    min_agreement: Annotated[
        float, typer.Option("--min-agreement", min=0.0, max=1.0, help="Share of them that both models must judge alike.")
    ] = 0.98,
    golden: Annotated[
        str | None, typer.Option("--golden", metavar="FILE", help="Labelled rows, as `evaluate` reads, that it must judge rightly.")
    ] = None,
    golden_accuracy: Annotated[float, typer.Option("--golden-accuracy", min=0.0, max=1.0, help="What share of them.")] = 0.95,
    label_field: LabelField = None,
    positive: Annotated[
        str | None,
        typer.Option("--positive", metavar="LABEL", help="The label of a detector that `true` means in --golden."),
    ] = None,
    alone: Annotated[
        bool,
        typer.Option("--alone", help="Never load it beside the old model: one worker after the other stops, changes, goes on."),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all workers serve it, or it was halted.")] = False,
    reading: Any = None,
) -> int:
    """Roll the fleet to another model, while it works; the old one stays if the new one fails anything."""
    from guardfleet.cli.commands import models

    return models.deploy(
        load_settings(),
        model,
        revision=revision,
        detector=detector,
        canary=canary,
        canary_texts=canary_texts,
        min_agreement=min_agreement,
        golden=golden,
        golden_accuracy=golden_accuracy,
        label_field=label_field,
        positive=positive,
        alone=alone,
        wait=wait,
        reading=reading,
    )


@models_app.command("shadow")
def shadow(
    model: Name,
    revision: Revision = None,
    detector: Detector = GUARD,
    share: Annotated[str, typer.Option("--share", metavar="SHARE", help="Share of the live texts, as 10%.")] = "10%",
) -> int:
    """Let a model judge a share of live texts too, and count where it agrees; nobody is told what it says."""
    from guardfleet.cli.commands import models

    return models.shadow(load_settings(), model, revision=revision, detector=detector, share=share)


@models_app.command("list")
def listing(as_json: Json = False) -> int:
    """List deployments, newest first, and what each worker serves."""
    from guardfleet.cli.commands import models

    return models.listing(load_settings(), as_json=as_json)


@models_app.command("show")
def show(label: Label = None, detector: Detector = GUARD, as_json: Json = False) -> int:
    """Show one: its state and why, agreement, what changed by category or label and by language, cost."""
    from guardfleet.cli.commands import models

    return models.show(load_settings(), label, detector=detector, as_json=as_json)


@models_app.command("promote")
def promote(detector: OfDetector = GUARD) -> int:
    """Roll out what is a shadow or a canary."""
    from guardfleet.cli.commands import models

    return models.promote(load_settings(), detector)


@models_app.command("stop")
def stop(detector: OfDetector = GUARD) -> int:
    """End what is a shadow, a canary, or being rolled out; the active model goes on."""
    from guardfleet.cli.commands import models

    return models.stop(load_settings(), detector)


@models_app.command("rollback")
def rollback(detector: OfDetector = GUARD) -> int:
    """Go back to the model from before."""
    from guardfleet.cli.commands import models

    return models.rollback(load_settings(), detector)
