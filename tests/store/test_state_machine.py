"""Any verbs in any order, by workers, zombies, callers and the dispatcher: every transition is in the table, and the rows agree."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from guardfleet.domain.states import TRANSITIONS, DeliveryState, JobState, ShardState
from guardfleet.errors import RejectedError
from guardfleet.jobs.intake import Intake
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store.events import deliveries
from guardfleet.store.events.deliveries import DueDelivery, Outcome
from guardfleet.store.jobs import control, intake, views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import bisect, leases, publishing
from guardfleet.store.shards.leases import Claim, Limits
from tests.services.stored import BULK, finish, new_job

Place = dict[tuple[type[IntEnum], Any], IntEnum]
LIMITS = Limits(3, 3)
KINDS = {"job": JobState, "shard": ShardState, "delivery": DeliveryState}


class Fleet(RuleBasedStateMachine):
    """One job on its way, with everybody who may touch it."""

    db: ClassVar[Database]
    keyring: ClassVar[Keyring]

    @initialize(n=st.integers(0, 5), strict=st.booleans())
    def begin(self, n: int, strict: bool) -> None:
        new = new_job(name="x", all_or_nothing=strict, callback_url="http://127.0.0.1/", callback_secret="whsec_" + "a" * 32)
        self.intake = Intake(self.db, self.keyring, load_settings(shard_texts=2, webhook_allow_networks=("127.0.0.0/8",)), new)
        self.job_id = self.intake.job.id
        self.next_line = 1
        self.claims: list[Claim] = []
        self.sendings: list[DueDelivery] = []
        self.newest: dict[int, int] = {}
        self.finished: set[int] = set()
        self.bring(n)

    @contextmanager
    def only(self, *verbs: str) -> Iterator[None]:
        """Whatever changed its state meanwhile did so along an edge of these verbs."""
        before = self.place()
        yield
        for thing, now in self.place().items():
            was = before.get(thing, now)
            if was is not now:
                edges = [edge for verb in verbs for edge in TRANSITIONS[thing[0]].get(verb, ())]
                assert (was, now) in edges, f"{thing}: {was!r} -> {now!r} by {verbs}"

    def place(self) -> Place:
        with self.db.begin() as connection:
            rows = connection.execute(
                f"""select 'job' as kind, 0::bigint as no, state from job where id = {self.job_id}
                    union all select 'shard', shard_no, state from shard where job_id = {self.job_id}
                    union all select 'delivery', id, state from delivery where job_id = {self.job_id}"""
            )
            return {(KINDS[row.kind], row.no): KINDS[row.kind](row.state) for row in rows}

    def state(self) -> IntEnum:
        return self.place()[JobState, 0]

    # who brings the texts

    @rule(n=st.integers(1, 5))
    def bring(self, n: int) -> None:
        with self.only(), suppress(RejectedError):
            for _ in range(n):
                self.intake.add(self.next_line, PayloadRow(f"{self.next_line}", f"text {self.next_line}"))
                self.next_line += 1
            self.intake._close_shard()
            self.intake._flush()

    @rule()
    def seal(self) -> None:
        with self.only("seal"), suppress(RejectedError):
            self.intake.seal()

    @rule()
    def abandon(self) -> None:
        with self.only("abandon"):
            intake.abandon(self.db, self.job_id, "x")

    # who owns the job

    @rule()
    def cancel(self) -> None:
        with self.only("cancel", "settle_cancelled"):
            control.cancel(self.db, self.job_id)

    @rule()
    def pause(self) -> None:
        with self.only(), suppress(RejectedError):
            control.pause(self.db, self.job_id)

    @rule()
    def resume(self) -> None:
        with self.only(), suppress(RejectedError):
            control.resume(self.db, self.job_id)

    # the dispatcher

    @rule()
    def ring(self) -> None:
        with self.only():
            bells = [bell for bell in publishing.due(self.db, BULK, limit=99) if bell.job_id == self.job_id]
            publishing.mark_published(self.db, bells)
        assert not bells or self.state() in (JobState.INGESTING, JobState.RUNNING)

    @rule()
    def rescue(self) -> None:
        with self.only("rescue"):
            leases.rescue(self.db, leases.overdue(self.db, limit=10_000))

    @rule()
    def expire_leases_of(self) -> None:
        with self.only():
            leases.expire_leases_of(self.db, "w")

    @rule()
    def settle_cancelled(self) -> None:
        with self.only("settle_cancelled", "cancel"):
            control.settle_cancelled(self.db, control.cancelling(self.db))

    @rule()
    def relay(self) -> None:
        with self.only():
            deliveries.relay(self.db, deliveries.events(self.db))

    # workers, and zombies: any claim of the past may be used

    @rule(no=st.integers(0, 12), lease_s=st.sampled_from([-1.0, 60.0]))
    def claim(self, no: int, lease_s: float) -> None:
        with self.only("claim"):
            held = leases.claim(self.db, self.job_id, no, worker="w", lease_s=lease_s)
        if held is not None:
            assert held.token > self.newest.get(no, 0)
            assert not views.get_by_id(self.db, self.job_id).is_paused
            self.newest[no] = held.token
            self.claims.append(held)

    def hand(self, at: int, verb: str, act: Callable[[Claim], bool]) -> None:
        held = self.claims[at % len(self.claims)]
        with self.only(verb):
            done = act(held)
        assert not done or (held.token == self.newest[held.shard_no] and held.shard_no not in self.finished)
        if done and verb == "finish":
            self.finished.add(held.shard_no)

    @precondition(lambda self: self.claims)
    @rule(at=st.integers(0, 99))
    def finish(self, at: int) -> None:
        self.hand(at, "finish", lambda held: finish(self.db, held))

    @precondition(lambda self: self.claims)
    @rule(at=st.integers(0, 99))
    def release(self, at: int) -> None:
        self.hand(at, "release", lambda held: leases.release(self.db, held))

    @precondition(lambda self: self.claims)
    @rule(at=st.integers(0, 99))
    def fail(self, at: int) -> None:
        self.hand(at, "fail", lambda held: leases.fail(self.db, held, error="x", delay_s=0))

    @precondition(lambda self: self.claims)
    @rule(at=st.integers(0, 99))
    def postpone(self, at: int) -> None:
        self.hand(at, "postpone", lambda held: leases.postpone(self.db, held, delay_s=0))

    @precondition(lambda self: any(held.n > 1 for held in self.claims))
    @rule(at=st.integers(0, 99))
    def bisect(self, at: int) -> None:
        several = [held for held in self.claims if held.n > 1]
        held = several[at % len(several)]
        texts = [PayloadRow(f"{i}", "x") for i in range(held.n)]
        with self.only("bisect"):
            bisect.bisect(self.db, self.keyring, held, texts, None, limits=LIMITS)

    # who sends the webhooks

    @rule(lease_s=st.sampled_from([-1.0, 60.0]))
    def take_delivery(self, lease_s: float) -> None:
        with self.only("claim"):
            ours = [no for kind, no in self.place() if kind is DeliveryState]
            found = [deliveries.claim(self.db, no, lease_s=lease_s) for no in ours]
        self.sendings += [due for due in found if due is not None]

    @precondition(lambda self: self.sendings)
    @rule(at=st.integers(0, 99), delivered=st.booleans())
    def settle(self, at: int, delivered: bool) -> None:
        with self.only("settle"):
            deliveries.settle(self.db, self.sendings[at % len(self.sendings)], Outcome(200, 1), delivered=delivered)

    @precondition(lambda self: self.sendings)
    @rule(at=st.integers(0, 99))
    def defer(self, at: int) -> None:
        with self.only("defer"):
            deliveries.defer(self.db, self.sendings[at % len(self.sendings)], Outcome(500, 1), delay_s=-1)

    # what the rows say

    @invariant()
    def rows_and_counters_agree(self) -> None:
        job = views.get_by_id(self.db, self.job_id)
        with self.db.begin() as connection:
            verdicts, distinct, logged, events, n_done, n_open = connection.execute(
                f"""select (select count(*) from verdict where job_id = {job.id}) as verdicts,
                           (select count(distinct seq) from verdict where job_id = {job.id}) as seqs,
                           (select coalesce(sum(n), 0) from shard_done where job_id = {job.id}) as logged,
                           (select count(*) from outbox where job_id = {job.id})
                             + (select count(*) from delivery where job_id = {job.id}) as events,
                           (select coalesce(sum(n), 0) from shard where job_id = {job.id} and state = 2) as done,
                           (select count(*) from shard where job_id = {job.id} and state in (0, 1)) as open"""
            ).fetchone()
        assert verdicts == distinct == logged == n_done == job.done == job.safe
        assert events == int(job.state.is_final)
        assert (job.state is JobState.COMPLETED) <= (job.done == job.total)
        assert not (job.state is JobState.RUNNING and job.done == job.total)
        assert not (job.state is JobState.CANCELLED and n_open)
        assert (job.finished_at is not None) == job.state.is_final


def test_any_verbs_in_any_order(db: Database, keyring: Keyring) -> None:
    machine = type("Fleet", (Fleet,), {"db": db, "keyring": keyring})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
        ),
    )
