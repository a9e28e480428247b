"""A database URL as the driver's keywords."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from guardfleet.errors import ConfigurationError
from guardfleet.store.postgres.connection import keywords


@pytest.mark.parametrize(
    ("url", "known"),
    [
        ("postgresql://user:pass%40%2Fw@db/x", {"user": "user", "password": "pass@/w", "host": "db", "dbname": "x"}),
        ("postgresql+psycopg://u@db:5433/x", {"user": "u", "host": "db", "port": "5433", "dbname": "x"}),
        (
            "postgresql://u@[::1]:5433/x?sslmode=require",
            {"user": "u", "host": "::1", "port": "5433", "dbname": "x", "sslmode": "require"},
        ),
        ("postgresql://postgres@/postgres?host=%2Frun%2Fpg", {"user": "postgres", "host": "/run/pg", "dbname": "postgres"}),
        (
            "postgresql://u@/x?host=db1:5432&host=db2:5433&target_session_attrs=read-write",
            {"user": "u", "host": "db1,db2", "port": "5432,5433", "dbname": "x", "target_session_attrs": "read-write"},
        ),
        ("postgresql://u@db1:5432,db2:5433/x", {"user": "u", "host": "db1,db2", "port": "5432,5433", "dbname": "x"}),
        ("postgresql://u@/x?host=[::1]:5433&host=::2", {"user": "u", "host": "::1,::2", "port": "5433,", "dbname": "x"}),
        ("postgresql://u@%2Frun%2Fpg/x?port=5433", {"user": "u", "host": "/run/pg", "port": "5433", "dbname": "x"}),
        ("postgresql://u@/x?%68ost=db1:1,db2:2", {"user": "u", "host": "db1,db2", "port": "1,2", "dbname": "x"}),
        ("postgresql://u@h0:9/x?host=h1", {"user": "u", "host": "h1", "dbname": "x"}),
        ("postgresql://u@h0/x?host=h1&host=h2&port=7", {"user": "u", "host": "h1,h2", "port": "7", "dbname": "x"}),
        ("postgresql://u@h0:9/x?host=&sslmode=&host", {"user": "u", "host": "h0", "port": "9", "dbname": "x"}),
        ("postgresql://h/x?options=-c+search_path=a%2Bb", {"host": "h", "dbname": "x", "options": "-c search_path=a+b"}),
        ("postgresql://u:s+q@h/x?", {"user": "u", "password": "s+q", "host": "h", "dbname": "x"}),
        ("postgresql://u:postgresql+psycopg:@h/x", {"user": "u", "password": "postgresql+psycopg:", "host": "h", "dbname": "x"}),
        ("postgresql://u@/x?host=db1&host=db2:5433", {"user": "u", "host": "db1,db2", "port": ",5433", "dbname": "x"}),
        ("postgresql:///x", {"dbname": "x"}),
    ],
)
def test_a_url_is_read_as_documented(url: str, known: dict[str, Any]) -> None:
    assert keywords(url) == known


@pytest.mark.parametrize(
    "url", ["postgresql://user:p%40ss@db:5433/x?sslmode=require", "postgresql://u@/x?host=/run/pg", "postgresql://h/d"]
)
def test_it_says_what_libpq_would_read(url: str) -> None:
    assert keywords(url) == conninfo_to_dict(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@db:99999/x",
        "postgresql://u:hunter2@db:0/x",
        "postgresql://u:hunter2@/x?host=db:port",
        "postgresql://u:hunter2@db/x?port=5432,70000",
        "postgresql://u:hunter2@db/x?nonsense=1",
        "postgresql://u:hunter2%e9@db/x",
        "postgresql://u:hunter2\udce9@db/x",
        "postgresql://u:hunter2@/x?host=\udce9",
        "postgresql://u:hunter2@/x?host=db%00hunter2",
        "postgresql://u:hunter2%@db/x",
        "postgresql://u:hunter2@db/x#hunter2",
        "postgresql://u:hunter2@db/x?port=\uff15",
        "postgresql://u:hunter2@/x?host=a:1&host=b:2&port=7",
        "postgresql://u:hunter2@/x?host=a&host=b&port=1,2,3",
        "host=h password=hunter2",
        "postgresql://u:hunter2@[::1/x",
        "hunter2",
    ],
)
def test_one_that_libpq_would_not_take_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be used: check its ports \(1 to 65535\)") as caught:
        keywords(url)
    assert "hunter2" not in str(caught.value)


@given(
    st.text()
    | st.from_regex(r"postgresql://[ -~]{0,12}@[ -~]{0,12}/[ -~]{0,8}\?(host|port|options|[a-z])=[ -~]{0,12}", fullmatch=True)
)
def test_any_other_is_read_or_refused(url: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert isinstance(keywords(url), dict)
