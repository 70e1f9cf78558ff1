"""Two doors to one collection, raced: stores and engine by CQL against the local server by HTTP.

As a command: ``make races``, or ``python -m cluster.races [ROUNDS]`` in the directory of the tests. In each round four
threads start together on one new key, two by each door. Every value is written once in the world and every operation
that can says what it replaced or removed; what was answered and what is left must be explained by some order of them.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from langchain_kv import KVStore
from langchain_kv.engines.base import KEEP, CollectionName, Engine

UNTOLD: Final = object()
"""For an operation that does not say what was there before."""


class Done(NamedTuple):
    """An operation that was answered: what it did, with which value, and the value that it found (None: no document).

    ``refused`` and ``overtaken`` did nothing.
    """

    kind: str
    value: str | None
    before: Any


class Tally(NamedTuple):
    """Of so many rounds: those that no order explains, values that vanished, and operations that failed."""

    rounds: int
    illegal: list[str]
    lost: list[str]
    failed: list[str]


Operation = Callable[[str, str], Done]
"""What a thread does with a key and a value."""

# Name: what the two threads of the HTTP door do, what those of the CQL door do, and whether the key exists before.
MIXES: Final[dict[str, tuple[Sequence[str], Sequence[str], bool]]] = {
    "upserts, new key": (("put", "put"), ("modify put", "modify put"), False),
    "upserts, existing key": (("put", "put"), ("modify put", "modify put"), True),
    "HTTP upserts, CQL deletes": (("put", "put"), ("modify delete", "modify delete"), True),
    "CQL upserts, HTTP deletes": (("delete", "delete"), ("modify put", "modify put"), True),
    "upsert and delete by both": (("put", "delete"), ("modify put", "modify delete"), True),
    "inserts": (("insert", "insert"), ("modify insert", "modify insert"), False),
    "HTTP upserts, mset, new key": (("put", "put"), ("mset", "mset"), False),
    "HTTP upserts, mset, existing key": (("put", "put"), ("mset", "mset"), True),
    "HTTP upserts, mdelete": (("put", "put"), ("mdelete", "mdelete"), True),
    "mset, HTTP deletes": (("delete", "delete"), ("mset", "mset"), True),
    "upsert and delete, mset and mdelete": (("put", "delete"), ("mset", "mdelete"), True),
}


def is_explained(start: str | None, done: Sequence[Done], end: str | None) -> bool:
    """Whether some order of the operations answers all that was answered and leaves what is left."""
    return any(_leads(start, order, end) for order in permutations(done))


def _leads(now: str | None, order: Sequence[Done], end: str | None) -> bool:
    for kind, value, before in order:
        if before is not UNTOLD and before != now:
            return False
        if kind == "put" or (kind == "insert" and now is None):
            now = value
        elif kind == "delete":
            now = None
    return now == end


def lost_values(start: str | None, done: Sequence[Done], end: str | None) -> list[str]:
    """Return the values that were acknowledged and not seen exactly once, if every operation told what it found."""
    done = [each for each in done if each.kind != "overtaken"]
    if any(each.before is UNTOLD for each in done):
        return []
    written = [each.value for each in done if each.kind == "put" or (each.kind == "insert" and each.before is None)]
    seen = [each.before for each in done if each.kind != "insert"] + [end]
    return [value for value in [start, *written] if value is not None and seen.count(value) != 1]


class HTTPDoor:
    """One thread's connection to a server of the Data API."""

    def __init__(self, url: str, token: str, collection: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._path = f"/v1/default_keyspace/{collection}"
        self._headers = {"Token": token, "Content-Type": "application/json"}

    def close(self) -> None:
        self._connection.close()

    def operation(self, name: str) -> Operation:
        return {"put": self._put, "delete": self._delete, "insert": self._insert}[name]

    def _ask(self, command: dict[str, Any]) -> Any:
        self._connection.request("POST", self._path, json.dumps(command), self._headers)
        return json.loads(self._connection.getresponse().read())

    def _put(self, key: str, value: str) -> Done:
        options = {"upsert": True, "returnDocument": "before"}
        command = {"filter": {"_id": key}, "replacement": {"value": value}, "options": options}
        reply = self._ask({"findOneAndReplace": command})
        before, status = reply["data"]["document"], reply["status"]
        if before is None and "upsertedId" not in status:
            return Done(
                "overtaken", None, UNTOLD
            )  # by a delete: the Data API writes nothing then, and reports no error
        return Done("put", value, _value(before))

    def _delete(self, key: str, value: str) -> Done:
        reply = self._ask({"findOneAndDelete": {"filter": {"_id": key}}})
        return Done("delete", None, _value(reply["data"]["document"]))

    def _insert(self, key: str, value: str) -> Done:
        reply = self._ask({"insertOne": {"document": {"_id": key, "value": value}}})
        codes = [error["errorCode"] for error in reply.get("errors", [])]
        if codes == ["DOCUMENT_ALREADY_EXISTS"]:
            return Done("refused", None, UNTOLD)
        assert not codes, codes
        return Done("insert", value, None)


class CQLDoor:
    """The engine, whose changes see what they replace, and a store on it."""

    def __init__(self, engine: Engine, store: KVStore, collection: CollectionName) -> None:
        self._engine, self._store, self._collection = engine, store, collection

    def operation(self, name: str) -> Operation:
        plain: dict[str, Operation] = {"mset": self._mset, "mdelete": self._mdelete}
        return plain.get(name) or (lambda key, value: self._modify(name.split()[1], key, value))

    def _mset(self, key: str, value: str) -> Done:
        self._store.mset([(key, value)])
        return Done("put", value, UNTOLD)

    def _mdelete(self, key: str, value: str) -> Done:
        self._store.mdelete([key])
        return Done("delete", None, UNTOLD)

    def _modify(self, kind: str, key: str, value: str) -> Done:
        found: list[bytes | None] = []  # the last is what the statement that was applied replaced

        def change(doc_id: object, body: bytes | None) -> Any:
            found.append(body)
            if kind == "delete":
                return None
            if kind == "insert" and body is not None:
                return KEEP
            return json.dumps({"_id": key, "value": value}, separators=(",", ":")).encode()

        self._engine.modify(self._collection, [key], change)
        body = found[-1]
        before = None if body is None else _value(json.loads(body))
        if kind == "insert" and body is not None:
            return Done("refused", None, UNTOLD)
        return Done(kind, None if kind == "delete" else value, before)


def _value(document: dict[str, Any] | None) -> Any:
    return None if document is None else document["value"]


def race(
    mix: str, rounds: int, doors: tuple[Sequence[HTTPDoor], CQLDoor], store: KVStore, keys: Iterator[str]
) -> Tally:
    """Race one of MIXES.

    Args:
        mix: its name.
        rounds: each on a key of its own.
        doors: two connections by HTTP, and the door by CQL.
        store: reads what is left, and writes what is there at the start.
        keys: keys that no document has.
    """
    by_http, by_cql, exists = MIXES[mix]
    operations = [door.operation(name) for door, name in zip(doors[0], by_http, strict=True)]
    operations += [doors[1].operation(name) for name in by_cql]
    tally = Tally(rounds, [], [], [])
    barrier = threading.Barrier(len(operations))

    def run(number: int, key: str) -> Done:
        barrier.wait(60)
        return operations[number](key, f"{key} {number}")

    with ThreadPoolExecutor(len(operations)) as threads:
        for key in (next(keys) for _ in range(rounds)):
            start = f"{key} start" if exists else None
            if start is not None:
                store.mset([(key, start)])
            running = [threads.submit(run, number, key) for number in range(len(operations))]
            failed = [repr(each.exception()) for each in running if each.exception() is not None]
            tally.failed.extend(failed)
            if failed:
                continue
            done = [each.result() for each in running]
            (end,) = store.mget([key])
            if not is_explained(start, done, end):
                tally.illegal.append(f"{mix}: from {start}, {done}, to {end}")
            tally.lost.extend(lost_values(start, done, end))
    return tally


def race_all(rounds: int, url: str, server_url: str, token: str, collection: str) -> Iterator[tuple[str, Tally]]:
    """Race every mix on one collection, and yield its name with what came of it.

    Args:
        rounds: of each mix.
        url: the cluster's.
        server_url: that of a server of the Data API on the same cluster.
        token: the server's.
        collection: one that exists in ``default_keyspace``.
    """
    from langchain_kv.places.embedded import release_engine
    from places import acquire_engine

    engine = acquire_engine(url)
    try:
        with KVStore(collection, url) as store:
            cql = CQLDoor(engine, store, CollectionName("default_keyspace", collection))
            http_doors = [HTTPDoor(server_url, token, collection) for _ in range(2)]
            keys = (f"key {number}" for number in range(sys.maxsize))
            for mix in MIXES:
                yield mix, race(mix, rounds, (http_doors, cql), store, keys)
            for door in http_doors:
                door.close()
    finally:
        release_engine(engine)


def main(rounds: int) -> int:
    """Race on a node of its own and ``lckv serve``; print a line a mix; return 1 if anything is wrong."""
    from cassandra_node import running_node
    from cluster.serving import served

    wrong = 0
    with running_node() as node, KVStore("races", node.url()) as store, served(node.url()) as server:
        assert store.mget(["none"]) == [None]
        print(f"{'mix, ' + str(rounds) + ' rounds each':42} illegal   lost failed")
        for mix, tally in race_all(rounds, node.url(), server.url, server.token, "races"):
            print(f"{mix:42} {len(tally.illegal):7} {len(tally.lost):6} {len(tally.failed):6}", flush=True)
            for line in [*tally.illegal, *tally.lost, *tally.failed][:5]:
                print("  ", line)
            wrong += len(tally.illegal) + len(tally.lost) + len(tally.failed)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
