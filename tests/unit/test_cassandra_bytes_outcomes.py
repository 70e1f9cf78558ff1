"""What a CassandraByteStore says of each key after failures, on a driver that is none: never surer than is known."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import cassandra
import pytest
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionShutdown

from langchain_kv import KVByteStore, PartialWriteError
from langchain_kv.engines.cassandra import operation as cassandra_operation
from langchain_kv.places.cassandra_tables import CassandraTablesPlace
from unit.fake_cassandra import Clock

LOST = ConnectionShutdown("the connection is gone")
NOBODY = NoHostAvailable("nobody is there", {})
TIMEOUT = cassandra.WriteTimeout("late", write_type=cassandra.WriteType.SIMPLE)
REFUSED = cassandra.InvalidRequest("too large")
ERRORS = [LOST, NOBODY, TIMEOUT, REFUSED]
NEVER_HAPPENED = (NOBODY, REFUSED)


class FakeSession:
    """A program's session on such a table.

    Attributes:
        rows: what is in the table.
        decide: says of each write how it fails, None if it does not, and whether it is carried out.
    """

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.decide: Any = lambda key: (None, True)

    def prepare(self, cql: str) -> Any:
        return SimpleNamespace(cql=cql)

    def execute(self, *_: Any, **__: Any) -> list[Any]:
        return []

    def execute_async(self, statement: Any, values: Any) -> Any:
        error, rows = None, []
        if statement.cql.startswith("SELECT"):
            rows = [(values[0], self.rows[values[0]])] if values[0] in self.rows else []
        else:
            error, is_done = self.decide(values[0])
            if is_done and statement.cql.startswith("DELETE"):
                self.rows.pop(values[0], None)
            elif is_done:
                self.rows[values[0]] = values[1]

        def add_callbacks(callback: Any, errback: Any, callback_args: Any, errback_args: Any) -> None:
            callback(rows, *callback_args) if error is None else errback(error, *errback_args)

        return SimpleNamespace(add_callbacks=add_callbacks)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    clock = Clock()
    monkeypatch.setattr(cassandra_operation, "time", clock)
    monkeypatch.setattr(cassandra_operation, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": clock.asleep}))
    return FakeSession()


def store_on(session: FakeSession) -> KVByteStore:
    return KVByteStore("t", CassandraTablesPlace("ks", session), deadline_s=10)


@pytest.mark.parametrize("later", NEVER_HAPPENED, ids=repr)
@pytest.mark.parametrize("removes", [False, True])
def test_a_write_that_may_have_happened_stays_unknown_whatever_comes_later(
    session: FakeSession, later: Exception, removes: bool
) -> None:
    with store_on(session) as store:
        store.mset([("a", b"0"), ("b", b"0"), ("c", b"0")])
        tries = iter([(LOST, True)])
        answers: dict[str, Any] = {"a": lambda: next(tries, (later, False)), "b": lambda: (NOBODY, False)}
        session.decide = lambda key: answers[key]() if key in answers else (None, True)
        with pytest.raises(PartialWriteError) as caught:
            store.mdelete(["a", "b", "c"]) if removes else store.mset([(key, b"1") for key in "abc"])
        session.decide = lambda key: (None, True)
        assert caught.value.unknown == ("a",)
        assert caught.value.unwritten == ("b",)
        assert caught.value.written == ("c",)


def test_a_write_that_was_lost_and_then_done_is_written(session: FakeSession) -> None:
    tries = iter([(LOST, False), (TIMEOUT, False)])
    session.decide = lambda key: next(tries, (None, True))
    with store_on(session) as store:
        store.mset([("a", b"1")])
        assert store.mget(["a"]) == [b"1"]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_fails_what_is_said_of_each_key_is_true(session: FakeSession, seed: int) -> None:
    chance = random.Random(seed)
    keys = [f"k{number}" for number in range(8)]

    def decide(key: str) -> tuple[Exception | None, bool]:
        error = chance.choice([*ERRORS, None, None])
        return error, error is None or (error not in NEVER_HAPPENED and chance.random() < 0.5)

    with store_on(session) as store:
        store.mset([(key, b"before") for key in keys])
        session.decide = decide
        told: Any = SimpleNamespace(written=keys, unwritten=(), unknown=())
        try:
            store.mset([(key, b"after") for key in keys])
        except PartialWriteError as error:
            told = error
        session.decide = lambda key: (None, True)
        assert sorted([*told.written, *told.unwritten, *told.unknown]) == keys
        assert {session.rows[key] for key in told.written} <= {b"after"}
        assert {session.rows[key] for key in told.unwritten} <= {b"before"}
