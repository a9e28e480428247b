"""`guardfleet bench`: its commands and their options."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Reproducible measurements of this machine.")


@app.command("engine", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench_engine(context: typer.Context) -> int:
    """Time the engine and compare it with what this machine can compute; see `guardfleet bench engine --help`."""
    from worker.engine.bench import cli

    return cli.main(context.args)


@app.command("pipeline")
def bench_pipeline(
    texts: Annotated[
        str, typer.Option("--texts", help="Sizes of the jobs, separated by commas; 20x10000: twenty in a row.")
    ] = "10000,100000",
    workers: Annotated[str, typer.Option("--workers", help="Numbers of worker processes, separated by commas.")] = "1",
    engine: Annotated[str, typer.Option("--engine", help="instant, or model (the one of GUARDFLEET_ENGINE__MODEL).")] = "instant",
    ms_per_batch: Annotated[
        float, typer.Option("--ms-per-batch", help="Time the instant engine sleeps per batch, as a GPU would compute.")
    ] = 0.0,
    shard_texts: Annotated[int, typer.Option("--shard-texts", help="Texts per shard.")] = 1024,
    duplicates: Annotated[str, typer.Option("--duplicates", help="Shares of texts that repeat others, separated by commas.")] = "0",
    source: Annotated[str | None, typer.Option("--input", help="Take texts from this file, repeatedly.")] = None,
    beside_engine: Annotated[
        bool, typer.Option("--beside-engine", help="Also time the bare engine on the rows of the first job.")
    ] = False,
    policy: Annotated[
        str | None, typer.Option("--policy", metavar="FILE", help="Run each load without this policy, and with it.")
    ] = None,
    polls: Annotated[bool, typer.Option("--polls/--no-polls", help="Poll the API meanwhile.")] = True,
    postgres: Annotated[str | None, typer.Option("--postgres", help="Server to create a database on; embedded by default.")] = None,
    broker: Annotated[str | None, typer.Option("--broker", help="amqp:// or redis://; embedded by default.")] = None,
    turns: Annotated[int, typer.Option("--turns", help="How often to run each load.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> int:
    """Time whole jobs (submit, dispatch, work, with polls meanwhile) and measure the disk, WAL and memory they use."""
    from guardfleet.cli.bench.pipeline import Load, bench
    from guardfleet.settings import load_settings
    from guardfleet.telemetry import logs

    logs.configure(load_settings(log_level="error", log_format="console"), process="bench")
    try:
        loads = [
            Load(
                int(size),
                int(jobs or 1),
                int(n),
                engine,
                ms_per_batch,
                shard_texts,
                float(share),
                source,
                beside_engine,
                polls,
                one_policy,
            )
            for jobs, _, size in (one.rpartition("x") for one in texts.split(","))
            for n in workers.split(",")
            for share in duplicates.split(",")
            for one_policy in ((None, policy) if policy else (None,))
        ]
    except ValueError:
        raise typer.BadParameter("--texts, --workers and --duplicates take numbers separated by commas.") from None
    return bench(loads, postgres=postgres, broker=broker, turns=turns, as_json=as_json)
