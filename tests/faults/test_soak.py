"""The soak, short; and that what it looks for would be found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from faults.ledger import Ledger, Operation, value_of
from faults.soak import _differing, soak
from faults.soak_client import RSS_GROWTH_MAX_MIB, Footprint
from langchain_kv.errors import ConnectError, PartialWriteError, TransportError


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors and threads in /proc")
def test_a_short_soak_leaves_nothing_behind_and_every_value_right(tmp_path: Path) -> None:
    report = soak(6, tmp_path, warm_s=2)

    print(report)
    assert (report.leaks, report.wrong) == ([], [])
    assert report.faults.total() > 5
    assert min(report.operations.values()) > 5


@pytest.fixture
def ledger() -> Ledger:
    return Ledger("w", seed=0)


def put(ledger: Ledger, number: int, result: Any = None) -> Operation:
    operation = Operation("mset", ["w-0", "w-1"], {"w-0": number, "w-1": number})
    if isinstance(result, Exception):
        ledger.failed(operation, result)
    else:
        ledger.succeeded(operation, result)
    return operation


def read(ledger: Ledger, *numbers: int | None) -> list[str]:
    keys = [f"w-{position}" for position in range(len(numbers))]
    ledger.succeeded(Operation("mget", keys), [None if number is None else value_of(number) for number in numbers])
    return ledger.wrong


def test_a_lost_write_and_an_old_value_are_wrong(ledger: Ledger) -> None:
    put(ledger, 1)
    put(ledger, 2)
    assert read(ledger, 2, 2) == []
    assert len(read(ledger, 1, None)) == 2


def test_a_write_that_failed_for_certain_must_not_show(ledger: Ledger) -> None:
    put(ledger, 1, ConnectError())
    assert read(ledger, None, None) == []
    assert len(read(ledger, 1, None)) == 1


def test_a_write_of_unknown_outcome_may_show(ledger: Ledger) -> None:
    put(ledger, 1, TransportError())
    assert read(ledger, 1, None) == []
    assert len(read(ledger, 2, None)) == 1


def test_a_partial_write_says_of_each_key_what_holds(ledger: Ledger) -> None:
    put(ledger, 1, PartialWriteError(written=("w-0",), unwritten=("w-1",)))
    assert read(ledger, 1, None) == []
    assert len(read(ledger, None, 1)) == 2


def test_a_partial_write_that_forgets_a_key_is_wrong(ledger: Ledger) -> None:
    put(ledger, 1, PartialWriteError(written=("w-0",)))
    assert "each key once" in ledger.wrong[0]


def test_a_foreign_exception_is_wrong(ledger: Ledger) -> None:
    put(ledger, 1, OSError("raw"))
    assert "OSError" in ledger.wrong[0]


def test_a_garbled_value_is_wrong(ledger: Ledger) -> None:
    put(ledger, 1)
    ledger.succeeded(Operation("mget", ["w-0"]), [{**value_of(1), "text": "?"}])
    assert "garbled" in ledger.wrong[0]


@pytest.mark.parametrize("found", [["w-0"], ["w-0", "w-1", "w-1"], ["w-0", "w-1", "w-2"]])
def test_a_scan_that_leaves_out_doubles_or_invents_a_key_is_wrong(ledger: Ledger, found: list[str]) -> None:
    put(ledger, 1)
    ledger.succeeded(Operation("yield_keys", ledger.keys), ["w-1", "w-0"])
    assert ledger.wrong == []
    ledger.succeeded(Operation("yield_keys", ledger.keys), found)
    assert len(ledger.wrong) == 1


def test_what_the_server_and_the_file_hold_is_compared_whole() -> None:
    possible: dict[str, set[int | None]] = {"a": {1}, "b": {None, 2}, "c": {None}}
    assert _differing("there", {"a": value_of(1)}, possible) == []
    assert len(_differing("there", {"b": value_of(1), "d": value_of(1)}, possible)) == 3


def test_a_leak_is_seen() -> None:
    before = Footprint(10, 2, 0, 50.0)
    assert Footprint(10, 2, 0, 50.0 + RSS_GROWTH_MAX_MIB).leaks_since(before) == []
    assert len(Footprint(11, 3, 1, 51.0 + RSS_GROWTH_MAX_MIB).leaks_since(before)) == 4
