"""The lanes of an installation's work, and the names of its queues."""

from dataclasses import dataclass
from enum import IntEnum


class Lane(IntEnum):
    """A class of work that never waits for another one; stored as its number."""

    BULK = 0
    INTERACTIVE = 1  # somebody waits

    @property
    def label(self) -> str:
        """Lower-case name, as in queues and metrics."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Queues:
    """The names of one installation's queues."""

    lanes: tuple[str, ...]  # by Lane; for work that any model may do
    webhooks: str
    dead: str
    dead_exchange: str

    @classmethod
    def of(cls, namespace: str) -> "Queues":
        """Name the queues with the namespace as prefix, so that installations can share a broker."""
        lanes = tuple(f"{namespace}.{lane.label}" for lane in Lane)
        return cls(lanes, f"{namespace}.webhooks", f"{namespace}.dead", f"{namespace}.dlx")

    def of_model(self, lane: Lane, model: str | None) -> str:
        """Return the queue of a lane's work for one model; the lane's own queue for None."""
        return self.lanes[lane] if model is None else f"{self.lanes[lane]}@{model}"
