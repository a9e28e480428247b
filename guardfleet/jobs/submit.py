"""The one way to submit a job, for files, bodies, tables, iterables and single texts alike.

The checks, in order: a policy that is not stored, a plan that makes no sense, a name that cannot be stored, a callback that cannot
be called, a model that nobody serves, and a fleet with too large a backlog. Quotas belong to API keys, so the API checks them.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from guardfleet.domain.detection import policy_of
from guardfleet.domain.options import JobOptions
from guardfleet.errors import RejectedError
from guardfleet.rows.metadata import is_storable
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.security.signing import is_secret, new_secret
from guardfleet.security.ssrf import addresses_of, check_addresses, receiver_of
from guardfleet.settings import Settings
from guardfleet.store import models
from guardfleet.store.jobs import creation, interactive
from guardfleet.store.jobs.creation import NewJob
from guardfleet.store.jobs.intake import OpenJob
from guardfleet.store.jobs.interactive import OnlineJob
from guardfleet.store.policy import prompt_policies
from guardfleet.store.postgres.database import Database


def open_job(
    db: Database,
    keyring: Keyring,
    settings: Settings,
    new: NewJob,
    *,
    addresses: Sequence[str] | None = None,
    also: Callable[[Any, uuid.UUID], None] | None = None,
) -> OpenJob:
    """Make a job that is open for texts, with the given or a new secret for its callback.

    `addresses`: the callback's addresses, from a caller that has resolved them. `also` runs in the same transaction, with the
    job's public id. Raises RejectedError, NotFoundError for a model that nobody serves, OverloadedError.
    """
    options = pinned(db, new.tenant_id, new.options)
    plan = options.plan.check()
    if not is_storable(options.name):
        raise RejectedError("the name of a job must not contain a NUL or a lone surrogate.", param="name")
    secret = callback_secret(options.callback_url, new.callback_secret, settings.webhooks.allow_networks, addresses)
    if not new.brings_workers:
        models.require_served(db, plan.model, plan.second_model)
        models.require_detectors(db, [*plan.detectors, *plan.second_entries])
        models.require_alike(db, plan)
    admitted = replace(new, options=options, callback_secret=secret)
    return creation.create(db, keyring, admitted, max_backlog=settings.intake.max_backlog_texts, also=also)


def judge_now(
    db: Database,
    keyring: Keyring,
    job_id: int,
    rows: Sequence[PayloadRow],
    options: JobOptions,
    *,
    tenant_id: int,
    keeps_nothing: bool = False,
) -> OnlineJob:
    """Make a job of a few texts that somebody waits for, complete from the start; nothing of it stays once it was answered.

    `job_id` is reserved beforehand, so that the caller can listen for the job's end before it exists. Raises NotFoundError for a
    model or a detector that nobody serves.
    """
    options = pinned(db, tenant_id, options)
    models.require_detectors(db, options.plan.detectors)
    models.require_served(db, options.model)
    return interactive.create(db, keyring, job_id, rows, options, tenant_id=tenant_id, keeps_nothing=keeps_nothing)


def pinned(db: Database, tenant_id: int, options: JobOptions) -> JobOptions:
    """Return the options with the version of each policy that a detector is to judge by: the newest where none is named.

    Raises NotFoundError for a policy that is not stored.
    """
    if not any(map(policy_of, options.detectors or ())):
        return options
    return options.model_copy(update={"detectors": prompt_policies.pinned(db, tenant_id, options.plan.detectors)})


def callback_secret(
    url: str | None, secret: str | None, allowed: Sequence[str], addresses: Sequence[str] | None = None
) -> str | None:
    """Return the secret that signs a job's callback: the given one, else a new one; None without a URL.

    Raises RejectedError if either is invalid, or if the URL leads to a private network that is not `allowed`.
    """
    if url is None:
        return None
    host, port = receiver_of(url, name="callback_url")
    check_addresses(addresses_of(host, port) if addresses is None else addresses, allowed, name="callback_url")
    if secret is not None and not is_secret(secret):
        raise RejectedError("callback_secret must be whsec_ and 24 to 64 bytes in base64.", param="callback_secret")
    return secret or new_secret()
