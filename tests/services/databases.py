"""Databases of a template, made ahead of the tests and dropped behind them: PostgreSQL takes half a second of writing for each."""

import uuid
from concurrent.futures import Future, ThreadPoolExecutor

import psycopg


def unique() -> str:
    """A name that says whose it is."""
    return f"gftest_{uuid.uuid4().hex[:10]}"


class Databases:
    """Those of one process of tests. The next is being made while a test has the one before."""

    def __init__(self, admin_url: str, template: str) -> None:
        self._admin_url, self._template = admin_url, template
        self._maker, self._dropper = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._next = self._maker.submit(self._make)
        self._dropped: list[Future[None]] = []

    def take(self) -> str:
        """The name of a fresh one."""
        name = self._next.result()
        self._next = self._maker.submit(self._make)
        return name

    def give_back(self, name: str) -> None:
        """Drop it, whoever is still connected to it."""
        self._dropped.append(self._dropper.submit(self._drop, name))

    def close(self) -> None:
        """Leave none. Raises what dropping one has raised."""
        self.give_back(self._next.result())
        for done in self._dropped:
            done.result()
        self._maker.shutdown()
        self._dropper.shutdown()

    def _make(self) -> str:
        name = unique()
        with psycopg.connect(self._admin_url, autocommit=True) as admin:
            admin.execute(f"create database {name} template {self._template}")
        return name

    def _drop(self, name: str) -> None:
        with psycopg.connect(self._admin_url, autocommit=True) as admin:
            admin.execute(f"drop database {name} with (force)")
