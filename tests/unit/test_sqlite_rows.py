"""Rows of a file are stored and removed many by one statement, whatever their number, kinds, sizes and moments are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langchain_kv.engines.base import CollectionName, Row
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.engines.sqlite.rows import delete_rows, upsert
from langchain_kv.engines.sqlite.schema import make_table
from langchain_kv.limits import DEFAULT_KEYSPACE

COLLECTION = CollectionName(DEFAULT_KEYSPACE, "kv")
COUNTS = (1, 2, 9, 10, 11, 49, 50, 51, 69, 100, 119, 501)
LONG = b"x" * 80_001
"""More than is stored together with others."""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SQLiteEngine]:
    engine = SQLiteEngine(str(tmp_path / "kv.db"))
    engine.create_collection(COLLECTION, {})
    yield engine
    engine.close()


@pytest.fixture
def table() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    make_table(connection, 1)
    yield connection
    connection.close()


def rows_for(count: int, body: bytes = b"1", *, is_raw: bool = False, expires_at: int | None = None) -> list[Row]:
    return [(f"k{number}", body + b"%d" % number, is_raw, expires_at) for number in range(count)]


def read(engine: SQLiteEngine, rows: Sequence[Row]) -> list[Row | None]:
    found = engine.read(COLLECTION, [row[0] for row in rows])
    return [row and (row[0], row[1], bool(row[2]), row[3]) for row in found]


@pytest.mark.parametrize("expires_at", [None, 5])
@pytest.mark.parametrize("is_raw", [False, True])
@pytest.mark.parametrize("count", COUNTS)
def test_batches_of_every_size_are_stored_stored_again_and_removed(
    engine: SQLiteEngine, count: int, is_raw: bool, expires_at: int | None
) -> None:
    other = [("other", b"{}", False, None)]
    first = rows_for(count, b"first", is_raw=not is_raw, expires_at=None if expires_at else 7)
    second = rows_for(count, b"second", is_raw=is_raw, expires_at=expires_at)
    engine.write(COLLECTION, other)
    engine.write(COLLECTION, first)
    assert read(engine, first) == first

    engine.write(COLLECTION, second)  # another kind and another moment in the place of the first
    assert read(engine, second) == second

    assert engine.delete(COLLECTION, [row[0] for row in second]) == count
    assert read(engine, second) == [None] * count
    assert read(engine, other) == other


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from([f"k{number}" for number in range(40)]),
                st.sampled_from([b"{}", b"", b"\x00", LONG]),
                st.booleans(),
                st.sampled_from([None, 5, 6]),
            ),
            max_size=130,
        ),
        max_size=3,
    )
)
def test_of_repeated_ids_the_last_row_wins_in_any_mixture(table: sqlite3.Connection, batches: list[list[Row]]) -> None:
    table.execute("DELETE FROM docs_1")
    for rows in batches:
        upsert(table, 1, rows)

    found = table.execute("SELECT id, content, is_raw, expires_at FROM docs_1").fetchall()
    assert {row[0]: row for row in found} == {row[0]: row for rows in batches for row in rows}
    assert delete_rows(table, 1, [row[0] for rows in batches for row in rows]) == len(found)
    assert table.execute("SELECT count(*) FROM docs_1").fetchone() == (0,)


@pytest.mark.parametrize(
    ("rows", "statements"),
    [
        (rows_for(1), 1),
        (rows_for(1_000), 20),
        (rows_for(1_000, expires_at=5), 20),
        ([row for number in range(100) for row in rows_for(10, expires_at=number + 1)], 20),  # each its own moment
        (rows_for(129, is_raw=True), 5),  # 50 + 50 + 10 + 10 + 9
        (rows_for(100, LONG), 100),  # SQLite would hold them all at once
    ],
)
def test_one_statement_stores_many_rows_unless_these_are_long(
    table: sqlite3.Connection, rows: list[Row], statements: int
) -> None:
    seen: list[str] = []
    table.set_trace_callback(seen.append)

    upsert(table, 1, rows)
    assert len(seen) == statements

    seen.clear()
    delete_rows(table, 1, [row[0] for row in rows])
    assert len(seen) == -(-len(rows) // 500)


def test_the_first_statement_tells_that_the_table_is_gone(table: sqlite3.Connection) -> None:
    for rows in (rows_for(1), rows_for(119)):
        with pytest.raises(sqlite3.OperationalError, match="no such table: docs_2"):
            upsert(table, 2, rows)
        with pytest.raises(sqlite3.OperationalError, match="no such table: docs_2"):
            delete_rows(table, 2, [row[0] for row in rows])
