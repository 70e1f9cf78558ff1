"""The matrix finds a client that is wrong, and its page in the documents has a row for each of its cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from faults import matrix, matrix_table
from faults.matrix import CELLS, Cell
from langchain_kv.backends.dataapi import replies
from langchain_kv.backends.dataapi.retry import Call
from langchain_kv.errors import PartialWriteError, StoreError

_persist = Call.persist
_partial = PartialWriteError.__init__
_read_inserted = replies.parse_inserted


@contextmanager
def _failing(handle: Callable[[StoreError], Any]) -> Iterator[None]:
    """Let ``handle`` answer, or raise, in place of each request that failed for good."""

    async def persist(self: Call, *arguments: Any, **options: Any) -> Any:
        try:
            return await _persist(self, *arguments, **options)
        except StoreError as error:
            return handle(error)

    with patch.object(Call, "persist", persist):
        yield


def _says_it_did_not_happen(error: StoreError) -> Any:
    error.applied = False
    raise error


def _says_it_cannot_know(error: StoreError) -> Any:
    error.applied = None
    raise error


def _says_it_is_over(error: StoreError) -> Any:
    error.retryable = False
    raise error


@contextmanager
def _never_again() -> Iterator[None]:
    async def persist(self: Call, attempt: Any, *arguments: Any, **options: Any) -> Any:
        async def once(one: Any) -> Any:
            try:
                return await attempt(one)
            except StoreError as error:
                error.retryable = False
                raise

        return await _persist(self, once, *arguments, **options)

    with patch.object(Call, "persist", persist):
        yield


@contextmanager
def _naming(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[None]:
    def made(self: PartialWriteError, *arguments: object, **names: Any) -> None:
        _partial(self, *arguments, **change(names))

    with patch.object(PartialWriteError, "__init__", made):
        yield


@contextmanager
def _existing_left_alone() -> Iterator[None]:
    def read(*arguments: Any, **options: Any) -> replies.Inserted:
        return _read_inserted(*arguments, **options)._replace(existing=[])

    with patch.object(replies, "parse_inserted", read):
        yield


MUTANTS: dict[str, tuple[Callable[[], Any], Cell, str]] = {
    "says a lost reply was no write": (
        lambda: _failing(_says_it_did_not_happen),
        Cell("resets, applied", "put 1", "sync", "lasts"),
        "stored",
    ),
    "says a cut try was no write": (
        lambda: _failing(_says_it_did_not_happen),
        Cell("stalls, applied", "setup, deletes first", "async", "lasts"),
        "stored",
    ),
    "never knows": (
        lambda: _failing(_says_it_cannot_know),
        Cell("refuses", "put 6 new", "async", "lasts"),
        "applied",
    ),
    "never knows of a read": (
        lambda: _failing(_says_it_cannot_know),
        Cell("502 page", "get", "sync", "lasts"),
        "applied",
    ),
    "gives up for good": (lambda: _failing(_says_it_is_over), Cell("502 page", "get", "sync", "lasts"), "outcome"),
    "never tries again": (_never_again, Cell("429", "delete", "async", "passes"), "outcome"),
    "swallows the last error": (
        lambda: _failing(lambda error: False),
        Cell("resets, not applied", "put 1", "sync", "lasts"),
        "stored",
    ),
    "asks for no fresh token": (
        lambda: patch.object(Call, "renew", lambda self, error: False),
        Cell("401, then a fresh token", "keys", "sync", "passes"),
        "outcome",
    ),
    "takes what is there for done": (
        _existing_left_alone,
        Cell("resets, applied", "put 6 mixed", "async", "passes"),
        "stored",
    ),
    "names what is written as unknown": (
        lambda: _naming(lambda names: {**names, "written": (), "unknown": names["written"] + names["unknown"]}),
        Cell("502 page", "put 9 new, second chunk", "sync", "lasts for a part"),
        "applied",
    ),
    "names what is unknown as unwritten": (
        lambda: _naming(lambda names: {**names, "unknown": (), "unwritten": names["unwritten"] + names["unknown"]}),
        Cell("passing code, applied", "put 2", "sync", "lasts for a part"),
        "stored",
    ),
    "forgets the keys of a chunk": (
        lambda: _naming(lambda names: {**names, "written": names["written"][1:]}),
        Cell("garbles", "delete", "async", "lasts for a part"),
        "applied",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_client_that_is_wrong_is_found(mutant: str) -> None:
    wrong_client, cell, concerns = MUTANTS[mutant]
    assert cell in CELLS

    assert matrix.run(cell).wrong == []
    with wrong_client():
        found = matrix.run(cell).wrong

    assert concerns in [each for each, _ in found]


def test_page_has_a_row_for_each_cell_and_no_other() -> None:
    """The figures are those of the last `make reliability`; what they are of is the matrix of today."""
    rows = matrix_table.written_rows(matrix_table.PAGE.read_text())

    shown = sorted(
        (fault, operation, duration) for fault, duration, operations, _, _ in rows for operation in operations
    )
    assert shown == sorted({(cell.fault, cell.operation, cell.duration) for cell in CELLS}), "run: make reliability"


def test_page_tells_of_no_failure_and_of_an_end_for_each_row() -> None:
    rows = matrix_table.written_rows(matrix_table.PAGE.read_text())

    for fault, duration, _, ends, failures in rows:
        assert failures == "0"
        assert duration != "passes" or ends == "success", fault


def test_table_tells_of_a_cell_that_failed() -> None:
    cell = Cell("refuses", "get", "sync", "lasts")
    other = cell._replace(mode="async")
    with _failing(_says_it_cannot_know):
        table = matrix_table.rows(matrix_table.measure([cell], 2) | matrix_table.measure([other], 2))

    assert "| refuses | lasts | get | ConnectError | None | 2 + 2 | 0 of 4 | 4 of 4 | 4 |" in table
    assert "2 cells (fault x operation x mode x how long), 4 tries, failures: 4." in table
