"""`guardfleet bench`: its commands and their options."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Reproducible figures of this machine.")


@app.command("engine", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench_engine(context: typer.Context) -> int:
    """Time the engine against what this machine can compute; `guardfleet bench engine --help` has its options."""
    from worker.engine.bench import cli

    return cli.main(context.args)


@app.command("pipeline")
def bench_pipeline(
    texts: Annotated[
        str, typer.Option("--texts", help="Sizes of the jobs, with commas; 20x10000: twenty of that size, one behind the other.")
    ] = "10000,100000",
    workers: Annotated[str, typer.Option("--workers", help="Worker processes; several with commas.")] = "1",
    engine: Annotated[str, typer.Option("--engine", help="instant, or model: the one of GUARDFLEET_ENGINE__MODEL.")] = "instant",
    ms_per_batch: Annotated[
        float, typer.Option("--ms-per-batch", help="What the instant engine sleeps for a batch, as a GPU.")
    ] = 0.0,
    shard_texts: Annotated[int, typer.Option("--shard-texts", help="Texts in a shard.")] = 1024,
    duplicates: Annotated[str, typer.Option("--duplicates", help="Share of texts that repeat others; several with commas.")] = "0",
    source: Annotated[str | None, typer.Option("--input", help="Take texts from this file, over and over.")] = None,
    beside_engine: Annotated[
        bool, typer.Option("--beside-engine", help="Time the engine alone on the rows of the first job.")
    ] = False,
    polls: Annotated[bool, typer.Option("--polls/--no-polls", help="Whether a client polls the API meanwhile.")] = True,
    postgres: Annotated[
        str | None, typer.Option("--postgres", help="A server to make a database on; embedded if left out.")
    ] = None,
    broker: Annotated[str | None, typer.Option("--broker", help="amqp:// or redis://; embedded if left out.")] = None,
    turns: Annotated[int, typer.Option("--turns", help="How often each is run.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON.")] = False,
) -> int:
    """Time whole jobs: submit, dispatch, work, polls meanwhile; and what they take of disk, WAL and memory."""
    from guardfleet.cli.bench.pipeline import Load, bench
    from guardfleet.settings import load_settings
    from guardfleet.telemetry import logs

    logs.configure(load_settings(log_level="error", log_format="console"), process="bench")
    try:
        loads = [
            Load(int(size), int(jobs or 1), int(n), engine, ms_per_batch, shard_texts, float(share), source, beside_engine, polls)
            for jobs, _, size in (one.rpartition("x") for one in texts.split(","))
            for n in workers.split(",")
            for share in duplicates.split(",")
        ]
    except ValueError:
        raise typer.BadParameter("--texts, --workers and --duplicates take numbers with commas between them.") from None
    return bench(loads, postgres=postgres, broker=broker, turns=turns, as_json=as_json)
