"""The one node is killed under work by both doors and started again: what was said of each key is held against the row.

Every key is written once, or deleted once, so that what may be there is known: a key that was told to be written has to
be there, one that was told not to be may not, and of an unknown one either is right.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cassandra_node import missing
from cassandra_own_nodes import OwnNode, own_nodes
from cluster.serving import LCKV, TOKEN
from installed import need
from langchain_kv import KVStore
from langchain_kv.errors import PartialWriteError, StoreError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

THREADS = 4
BATCH = 20
ROUNDS_MAX = 200
PLANTED = 40
WITHIN_S = 90.0


class Worker:
    """Stores, or deletes, batches of keys of its own, each key once, and notes what it is told.

    Attributes:
        told: by key, whether it was written (or deleted); None where that is unknown.
        errors: what was raised.
        rounds: counts the batches; whoever holds it may wait for more.
    """

    def __init__(self, store: KVStore, name: str, *, deletes: bool) -> None:
        self.told: dict[str, bool | None] = {}
        self.errors: list[StoreError] = []
        self.deletes = deletes
        self.done = 0
        self.changed = threading.Condition()
        self._store = store
        self._name = name

    def batch(self, number: int) -> list[str]:
        return [f"{self._name}-{number}-{at}" for at in range(BATCH)]

    def work(self, until: threading.Event) -> None:
        for number in range(PLANTED if self.deletes else ROUNDS_MAX):
            if until.is_set():
                return
            keys = self.batch(number)
            self.told.update(self._said(keys))
            with self.changed:
                self.done += 1
                self.changed.notify_all()

    def _said(self, keys: list[str]) -> dict[str, bool | None]:
        try:
            self._store.mdelete(keys) if self.deletes else self._store.mset([(key, 1) for key in keys])
        except PartialWriteError as error:
            self.errors.append(error)
            written, unwritten = dict.fromkeys(error.written, True), dict.fromkeys(error.unwritten, False)
            return {**dict.fromkeys(error.unknown), **written, **unwritten}
        except StoreError as error:
            self.errors.append(error)
            return dict.fromkeys(keys, error.applied)
        return dict.fromkeys(keys, True)

    def wait_for(self, more: int) -> None:
        with self.changed:
            wanted = self.done + more
            assert self.changed.wait_for(lambda: self.done >= wanted, WITHIN_S), self.errors[-1:]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[OwnNode]:
    need(missing())
    with own_nodes(tmp_path) as (node,):
        yield node


@contextmanager
def opened(door: str, url: str, log: Path) -> Iterator[KVStore]:
    """Give a store on the cluster, by CQL or through ``lckv serve``."""
    if door == "cql":
        with KVStore("kv", url) as store:
            yield store
        return
    environment = {**os.environ, "LCKV_TOKEN": TOKEN}
    with open(log, "w") as stderr:
        server = subprocess.Popen(
            [*LCKV, "serve", "--port", "0", "--db", url],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
        )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("listening on "), log.read_text()
        with KVStore("kv", line.split()[-1], token=TOKEN) as store:
            yield store
    finally:
        server.terminate()
        server.communicate(timeout=60)


@pytest.mark.parametrize("door", ["cql", "lckv serve"])
def test_whatever_was_said_of_a_key_while_the_node_was_killed_is_true(node: OwnNode, tmp_path: Path, door: str) -> None:
    url = f"cassandra://{node.host}:{node.port}/default_keyspace"
    with KVStore("kv", url) as straight, opened(door, url, tmp_path / "server.log") as store:
        workers = [Worker(store, f"w{number}", deletes=number % 2 == 1) for number in range(2 * THREADS)]
        for worker in workers:
            if worker.deletes:
                straight.mset([(key, 1) for number in range(PLANTED) for key in worker.batch(number)])
        until = threading.Event()
        threads = [threading.Thread(target=worker.work, args=(until,)) for worker in workers]
        for thread in threads:
            thread.start()
        for worker in workers:
            worker.wait_for(1)
        node.kill()
        node.start()
        node.wait()
        for worker in workers:  # by itself, once the node is there
            worker.wait_for(2)
        until.set()
        for thread in threads:
            thread.join(WITHIN_S)

        wrong = []
        for worker in workers:
            keys = list(worker.told)
            for key, value in zip(keys, straight.mget(keys), strict=True):
                told, is_done = worker.told[key], (value is None) == worker.deletes
                if told is not None and told is not is_done:
                    wrong.append((key, told, value))
    assert not wrong, [error for worker in workers for error in worker.errors][:3]
    told_of: list[Any] = [told for worker in workers for told in worker.told.values()]
    assert False not in told_of  # the outage was shorter than the deadline: whatever was not sent was sent later
    print(door, {told: told_of.count(told) for told in (True, None)}, [len(worker.errors) for worker in workers])
