"""``lckv``'s commands on collections, on a real cluster."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from cassandra_node import Node
from kept_collections import check_commands_on_collections
from running import Lckv, lckv_in_this_process

pytestmark = pytest.mark.slow


@pytest.fixture
def lckv(capsysbinary: pytest.CaptureFixture[bytes]) -> Lckv:
    return lckv_in_this_process(capsysbinary)


def test_a_cluster_lists_counts_checks_clears_and_drops(lckv: Lckv, cassandra_node: Node) -> None:
    check_commands_on_collections(lckv, cassandra_node.url(), keeps_empty=True, tells_missing=True)


def test_a_keyspace_that_is_missing_is_told_by_every_command(lckv: Lckv, cassandra_node: Node) -> None:
    where = ["--db", cassandra_node.url(), "--keyspace", "nowhere"]
    for command in ("collections", "info", "check", "count --collection kv", "drop --yes --collection kv"):
        code, out, error = lckv(*command.split(), *where)
        assert (code, out) == (3, b""), command
        assert "There is no keyspace 'nowhere'" in error


def test_what_has_expired_is_purged_from_a_cluster(
    lckv: Lckv, cassandra_node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langchain_kv.runtime import clock

    where = ["--db", cassandra_node.url(), "--keyspace", "of_expiry", "--collection", "kv"]
    assert lckv("set", "short", "1", "--ttl", "90", *where).code == 0
    assert lckv("set", "long", "1", "--ttl", "7d", *where).code == 0
    now = clock._now_ns()
    monkeypatch.setattr(clock, "_now_ns", lambda: now + 100 * 10**9)

    assert lckv("keys", *where).out == b"long\n"
    assert lckv("purge", *where).error == "lckv: removed 1\n"
    assert lckv("purge", *where).error == "lckv: removed 0\n"
    (item,) = map(json.loads, lckv("items", *where).out.splitlines())
    assert datetime.fromisoformat(item["expires_at"]) > datetime.fromtimestamp(now / 10**9, UTC)
    assert lckv("drop", "--yes", *where).code == 0
