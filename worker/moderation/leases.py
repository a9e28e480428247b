"""Renews short leases while work continues: a slow shard is never taken away, a dead worker's is free again within a minute."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from guardfleet.errors import RetryableError, StatementError
from guardfleet.settings import LEASE_RENEWALS
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import leases
from guardfleet.store.shards.leases import Claim
from guardfleet.telemetry.logs import get_logger, told


class LeaseKeeper:
    """Renews all leases of the process from one thread."""

    def __init__(self, db: Database, *, lease_s: float) -> None:
        self._db, self._lease_s = db, lease_s
        self._held: dict[tuple[int, int], Claim] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._renew_for_ever, name="leases", daemon=True)

    @contextmanager
    def keep(self, held: Claim) -> Iterator[None]:
        """Renew this claim until the block is left."""
        key = (held.job_id, held.shard_no)
        with self._lock:
            self._held[key] = held
        try:
            yield
        finally:
            with self._lock:
                if self._held.get(key) is held:
                    del self._held[key]

    def start(self) -> None:
        """Start renewing."""
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; safe to call twice."""
        self._stopped.set()

    def _renew_for_ever(self) -> None:
        while not self._stopped.wait(self._lease_s / LEASE_RENEWALS):
            with self._lock:
                held = list(self._held.values())
            try:
                self._renew(held)
            except RetryableError as error:  # the next round tries again; a lease outlives two lost renewals
                get_logger().warning("lease_renewal_failed", leases=len(held), reason=str(error))
            except Exception as error:  # noqa: BLE001 - without this thread all leases of a live process would run out
                get_logger().error("lease_renewal_failed", leases=len(held), **told(error))

    def _renew(self, held: list[Claim]) -> None:
        """Renew all at once; if PostgreSQL refuses, renew each alone, so that one bad row costs no other shard its lease."""
        try:
            leases.renew(self._db, held, lease_s=self._lease_s)
        except StatementError as error:
            if len(held) > 1:
                for one in held:
                    self._renew([one])
            else:
                get_logger().warning("lease_renewal_failed", job=held[0].label, shard=held[0].shard_no, reason=str(error))
