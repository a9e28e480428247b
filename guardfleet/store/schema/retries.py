"""The table behind retries: which text of a first job each text of a retry is."""

from sqlalchemy import BigInteger, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from guardfleet.store.schema.base import Base


class Retried(Base):
    """A text that a retry judges again: its place in the first job. Written in the commit of the retry's shard, never changed."""

    __tablename__ = "retried"
    of_job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    of_seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    job_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)  # the highest is the newest retry
    seq: Mapped[int]
    __table_args__ = (UniqueConstraint("job_id", "seq"),)
