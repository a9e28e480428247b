"""The names of an installation's queues."""

from dataclasses import dataclass

LANE_NAMES = ("bulk", "interactive")


@dataclass(frozen=True, slots=True)
class Queues:
    """The names of one installation's queues."""

    lanes: tuple[str, ...]  # index = lane number; of work that any model may do
    webhooks: str
    dead: str
    dead_exchange: str

    @classmethod
    def of(cls, namespace: str) -> "Queues":
        """Queues are prefixed with the namespace, so that installations can share a broker."""
        lanes = tuple(f"{namespace}.{lane}" for lane in LANE_NAMES)
        return cls(lanes, f"{namespace}.webhooks", f"{namespace}.dead", f"{namespace}.dlx")

    def of_model(self, lane: int, model: str | None) -> str:
        """The queue of a lane's work for one model; the lane's own for None."""
        return self.lanes[lane] if model is None else f"{self.lanes[lane]}@{model}"
