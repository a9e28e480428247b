"""`guardfleet db`, `guardfleet keys` and `guardfleet audit`: their commands and options."""

from contextlib import closing
from typing import Annotated

import typer

from guardfleet.domain.scopes import ALL, ROLES, scopes_of
from guardfleet.settings import load_settings

db_app = typer.Typer(no_args_is_help=True, help="Migrations.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys and the installation's secret key.")


@db_app.command("upgrade")
def db_upgrade() -> int:
    """Migrate the schema to the newest version, and pin the secret key. Safe to run concurrently."""
    from guardfleet.security.encryption import Keyring
    from guardfleet.store import installation, migrate
    from guardfleet.store.postgres.database import Database

    settings = load_settings()
    with closing(Database(settings.required("database_url"), pool_size=1)) as db:
        print(migrate.upgrade(db))
        installation.require_key(db, Keyring.of(settings))
    return 0


@db_app.command("current")
def db_current() -> int:
    """Print the schema's migration and the one that this version needs."""
    from guardfleet.store import migrate
    from guardfleet.store.postgres.database import Database

    with closing(Database(load_settings().required("database_url"), pool_size=1)) as db:
        found = migrate.current(db)
    print(f"{found or 'empty'} (this version needs {migrate.head()})")
    return 0 if found == migrate.head() else 1


@keys_app.command("secret")
def keys_secret() -> int:
    """Print a new secret key for GUARDFLEET_SECRET_KEY."""
    from guardfleet.security.encryption import new_secret_key

    print(new_secret_key())
    return 0


@keys_app.command("rotate-secret")
def keys_rotate_secret() -> int:
    """Replace GUARDFLEET_PREVIOUS_SECRET_KEY by GUARDFLEET_SECRET_KEY as the installation's key; read docs/security.md first."""
    from guardfleet.cli.commands import keys

    return keys.rotate_secret(load_settings())


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What the key is for.")] = "key",
    tenant: Annotated[str, typer.Option("--tenant", help="Tenant whose jobs the key can see.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="Permission, such as batches:read; repeatable. audit:read is not part of all."),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option("--role", metavar="ROLE", help=f"Instead of --scope: {', '.join(ROLES)}."),
    ] = None,
    days: Annotated[float | None, typer.Option("--days", min=0.0, help="Days until the key expires; default: never.")] = None,
) -> int:
    """Create an API key and print it, once."""
    from guardfleet.cli.commands import keys

    scopes = scopes_of(role, scope or []) if role is not None else scope or [ALL]
    return keys.create(load_settings(), name=name, tenant=tenant, scopes=scopes, days=days)


@keys_app.command("list")
def keys_list(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False) -> int:
    """List all API keys, without their secrets."""
    from guardfleet.cli.commands import keys

    return keys.listing(load_settings(), as_json=as_json)


@keys_app.command("revoke")
def keys_revoke(key: Annotated[str, typer.Argument(help="Id of the key as in `keys list`: key_...")]) -> int:
    """Revoke an API key."""
    from guardfleet.cli.commands import keys

    return keys.revoke(load_settings(), key)


@keys_app.command("rotate")
def keys_rotate(
    key: Annotated[str, typer.Argument(help="Id of the key as in `keys list`: key_...")],
    hours: Annotated[float, typer.Option("--overlap-hours", min=0.0, help="Hours that the old key stays valid.")] = 24.0,
) -> int:
    """Create a key's successor and print it, once."""
    from guardfleet.cli.commands import keys

    return keys.rotate(load_settings(), key, overlap_hours=hours)


def audit(
    since: Annotated[str, typer.Option("--since", help="From when on: 90m, 24h, 7d ago, or a date or time in ISO 8601.")] = "7d",
    until: Annotated[str | None, typer.Option("--until", help="Up to when, in the same forms.")] = None,
    actor: Annotated[
        str | None, typer.Option("--actor", help="Only this actor: key_..., user@host, or key, command, program, dispatcher, ...")
    ] = None,
    action: Annotated[list[str] | None, typer.Option("--action", help="Only this action, such as job.cancel; repeatable.")] = None,
    job: Annotated[str | None, typer.Option("--job", metavar="JOB", help="Only actions on this job.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> int:
    """Show who did what, oldest first."""
    from guardfleet.cli.commands import audit as command

    return command.trail(
        load_settings(), since=since, until=until, actor=actor, actions=action or None, job=job, tenant=tenant, as_json=as_json
    )
