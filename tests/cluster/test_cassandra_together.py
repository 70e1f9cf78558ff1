"""Expiry, update and add on one collection of Apache Cassandra, by many processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cassandra_node import Node
from langchain_kv.engines.base import CollectionName
from langchain_kv.runtime import clock
from together import SharedClock, Where, adding_at_once, expiry_by_eight_processes, updates_by_sixteen_threads

pytestmark = pytest.mark.slow


@pytest.fixture
def where(cassandra_node: Node, kv: CollectionName) -> Where:
    return {"collection": kv.name, "url": cassandra_node.url()}


def test_what_has_expired_is_served_and_listed_by_none_of_eight_processes(
    where: Where, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = SharedClock(tmp_path / "clock")
    monkeypatch.setattr(clock, "_now_ns", times.now_ns)
    expiry_by_eight_processes(where, times, count=60, steps=5)


def test_no_increment_of_sixteen_threads_in_two_processes_is_lost(where: Where) -> None:
    updates_by_sixteen_threads(where, times=25)


def test_of_sixteen_processes_that_add_the_same_keys_each_key_has_one_winner(where: Where) -> None:
    adding_at_once(where, by=16)
