"""The tables about the fleet itself: its workers, and how many of them are wanted."""

import datetime as dt

from sqlalchemy import BigInteger, SmallInteger
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.store.schema.base import NOW, Base


class Worker(Base):
    """A worker process: written at its start and every few seconds; a row that grows old is that of one that has died.

    The dispatcher deletes rows that are days old: until then they say what a worker of that model can do.
    """

    __tablename__ = "worker"
    name: Mapped[str] = mapped_column(primary_key=True)  # as in shard.worker
    model: Mapped[str | None]  # null while it is loading and does not know the name yet
    revision: Mapped[str | None]
    state: Mapped[int] = mapped_column(SmallInteger)  # states.WorkerState
    started_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    seen_at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    tokens_per_s: Mapped[float | None]  # while its device is busy; null: not measured yet
    tokens_per_byte: Mapped[float | None]  # tokens given to the device for each byte of the texts that it finished
    device: Mapped[str | None]  # as torch names it; null: a version before 0029, or its model is loading
    used_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of the device's memory; null: it has none of its own
    total_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of that memory


class Scaling(Base):
    """How many workers a route needs, written by the leading dispatcher every few seconds. The view hides old rows."""

    __tablename__ = "scaling"
    route: Mapped[str] = mapped_column(primary_key=True)  # the model that the work names; `any`: none
    wanted: Mapped[int]
    at: Mapped[dt.datetime] = mapped_column(server_default=NOW)
