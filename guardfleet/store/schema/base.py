"""What the tables share: names of constraints, column types, identity columns."""

import datetime as dt
import uuid
from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

NAMING = {
    "ix": "%(table_name)s_%(column_0_N_name)s",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(column_0_name)s_fkey",
}
NOW = text("now()")
ZERO = text("0")


class Base(DeclarativeBase):
    """The declarative base, with column types for plain annotations."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own declaration form
        str: Text,
        int: Integer,
        float: REAL,
        bool: Boolean,
        bytes: LargeBinary,
        uuid.UUID: Uuid,
        dt.date: Date,
        dt.datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
    }


def identity() -> Any:
    """Return a bigint primary key that PostgreSQL counts up."""
    return mapped_column(BigInteger, Identity(always=True), primary_key=True)
