"""Values moved over a cluster by the command: there and back, and out of a table of the archived CassandraByteStore."""

from __future__ import annotations

import os
import warnings
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cassandra_node import PASSWORD, USER, Node, driver_of
from langchain_kv import BackendOptions, KVByteStore
from langchain_kv.cli.main import run
from langchain_kv.places.schemes import parse_url
from langchain_kv.testing import DataAPIServer
from moving_values import contents, records

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("LCKV_TEST_COPIES", "1400"))
"""Values that go the whole way; 100,000 are copied by setting this."""


def test_a_chain_of_copies_over_a_cluster_ends_without_a_difference(
    cassandra_node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "test-token")
    kv = ["--collection", "moved"]
    with DataAPIServer() as server:
        first, last = (f"sqlite:{tmp_path}/{name}.db" for name in ("first", "last"))
        chain = [first, server.url, cassandra_node.url("default_keyspace"), last]
        with closing(parse_url(first).open(BackendOptions("moved", "default_keyspace"))) as backend:
            backend.open()
            backend.put_many(records(COUNT))
            expected = contents(backend)
        for source, target in pairwise(chain):
            assert run(["copy", source, target, *kv]) == 0, target
            assert run(["diff", first, target, *kv]) == 0, target
            assert run(["diff", target, first, *kv]) == 0, target
    with closing(parse_url(last).open(BackendOptions("moved", "default_keyspace"))) as backend:
        assert contents(backend) == expected


def test_what_the_archived_byte_store_wrote_is_taken(cassandra_node: Node, tmp_path: Path) -> None:
    from cassandra.auth import PlainTextAuthProvider

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its end
        from langchain_community.storage.cassandra import CassandraByteStore as Archived
    pairs: list[tuple[str, Any]] = [(f"k{number}", bytes([number % 256]) * number) for number in range(300)]
    access = PlainTextAuthProvider(USER, PASSWORD)
    with ExitStack() as ends:
        cluster = driver_of(cassandra_node.host, cassandra_node.port, auth_provider=access)
        ends.callback(cluster.shutdown)
        session = cluster.connect()
        replication = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
        session.execute(f"CREATE KEYSPACE IF NOT EXISTS left_behind WITH replication = {replication}")
        Archived("blobs", session=session, keyspace="left_behind").mset(pairs)
    source, to = cassandra_node.url("left_behind"), f"sqlite:{tmp_path / 'kv.db'}"
    more = ["--name", "blobs", "--collection", "kv", "--verify"]

    assert run(["import-from", source, to, "--layout", "cassandra", *more]) == 0
    with KVByteStore("kv", to) as store:
        assert store.mget([key for key, _ in pairs]) == [value for _, value in pairs]
