"""Our store on Apache Cassandra against the bare driver on the same node: ``python -m benchmarks.cassandra``.

The floor sends the same statements through the driver alone, prepared, by whichever of its ways was fastest: keys
by ``IN`` in chunks, several at a time, for reading; ``execute_concurrent`` for conditional writes; token ranges for a
scan. It makes and reads JSON, as the store has to. Both keep their values in collections of one node, which this
starts (Java 17 and Maven are needed) unless ``--url`` names one.
"""

from __future__ import annotations

import argparse
import logging
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from cassandra import ConsistencyLevel
from cassandra.concurrent import execute_concurrent_with_args

from benchmarks import report
from benchmarks.measure import Subject, compare
from langchain_kv import KVStore
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.cassandra.connect import connect
from langchain_kv.engines.cassandra.engine import CassandraEngine
from langchain_kv.places.clusters import ClusterPlace
from langchain_kv.places.schemes import parse_url

COUNT: Final = 1_000
SCANNED: Final = 20_000
AT_MOST: Final = 1.3
IN_CHUNK: Final = 50
READS_AT_ONCE: Final = 8
WRITES_AT_ONCE: Final = 64
RANGES: Final = 16
FETCH: Final = 5_000

KEYS: Final = [f"key-{number:06d}" for number in range(COUNT)]


class Verbs(NamedTuple):
    """What is timed, by its name in the table."""

    get: Callable[[list[str]], list[Any]]
    put: Callable[[list[tuple[str, Any]]], None]
    delete: Callable[[list[str]], None]
    scan: Callable[[], int]


class Floor:
    """The driver alone, on one table of the Data API's layout."""

    def __init__(self, session: Any, table: str) -> None:
        self._session = session
        self._get = session.prepare(f"SELECT key, doc_json FROM {table} WHERE key IN ?")
        self._put = session.prepare(
            f"UPDATE {table} SET tx_id = ?, doc_json = ?, exist_keys = ?, query_text_values = ? WHERE key = ?"
            " IF tx_id != 00000000-0000-1000-8000-000000000000"
        )
        self._delete = session.prepare(f"DELETE FROM {table} WHERE key = ? IF EXISTS")
        self._scan = session.prepare(f"SELECT key FROM {table} WHERE token(key) >= ? AND token(key) <= ?")
        self._scan.fetch_size = FETCH
        for statement in (self._get, self._put, self._delete, self._scan):
            statement.consistency_level = ConsistencyLevel.LOCAL_QUORUM
            statement.serial_consistency_level = ConsistencyLevel.LOCAL_SERIAL

    def get(self, keys: list[str]) -> list[Any]:
        chunks = [[(1, key) for key in keys[start : start + IN_CHUNK]] for start in range(0, len(keys), IN_CHUNK)]
        found = {
            key[1]: orjson.loads(text)["value"]
            for rows in self._all(self._get, [(chunk,) for chunk in chunks], READS_AT_ONCE)
            for key, text in rows
        }
        return [found.get(key) for key in keys]

    def put(self, pairs: list[tuple[str, Any]]) -> None:
        calls = [
            (uuid.uuid1(), orjson.dumps({"_id": key, "value": value}).decode(), {"_id"}, {"_id": key}, (1, key))
            for key, value in pairs
        ]
        self._all(self._put, calls, WRITES_AT_ONCE)

    def delete(self, keys: list[str]) -> None:
        self._all(self._delete, [((1, key),) for key in keys], WRITES_AT_ONCE)

    def scan(self) -> int:
        width = 2**64 // RANGES
        starts = [-(2**63) + width * number for number in range(RANGES)]
        ranges = [(start, start + width - 1) for start in starts]
        return sum(len([key[1] for (key,) in rows]) for rows in self._all(self._scan, ranges, READS_AT_ONCE))

    def _all(self, statement: Any, values: list[Any], width: int) -> list[list[Any]]:
        done = execute_concurrent_with_args(self._session, statement, values, concurrency=width)
        return [list(answer) for _, answer in done]


def _verbs(who: Floor | KVStore) -> Verbs:
    if isinstance(who, Floor):
        return Verbs(who.get, who.put, who.delete, who.scan)
    return Verbs(who.mget, who.mset, who.mdelete, lambda: sum(1 for _ in who.yield_keys()))


def _rows() -> Iterator[tuple[str, int, Callable[[str, Verbs], Subject]]]:
    """Yield each row's name, the calls of one round, and what makes its subjects."""
    pairs = [(key, f"{key} " + "x" * 110) for key in KEYS]
    values = [value for _, value in pairs]

    def nothing(_: int) -> None:
        pass

    def stored(verbs: Verbs, expected: list[Any]) -> Callable[[int, Any], None]:
        def check(_: int, __: Any) -> None:
            assert verbs.get(KEYS) == expected, "what is stored is not what was put"

        return check

    def is_answer(expected: Any) -> Callable[[int, Any], None]:
        def check(_: int, result: Any) -> None:
            assert result == expected, "a wrong answer"

        return check

    yield (
        "put 1,000 new",
        COUNT,
        lambda name, of: Subject(name, lambda _: of.delete(KEYS), lambda _: of.put(pairs), stored(of, values), nothing),
    )
    yield (
        "put 1,000 existing",
        COUNT,
        lambda name, of: Subject(name, lambda _: of.put(pairs), lambda _: of.put(pairs), stored(of, values), nothing),
    )
    yield (
        "get 1,000",
        COUNT,
        lambda name, of: Subject(name, nothing, lambda _: of.get(KEYS), is_answer(values), nothing),
    )
    yield (
        "delete 1,000",
        COUNT,
        lambda name, of: Subject(
            name, lambda _: of.put(pairs), lambda _: of.delete(KEYS), stored(of, [None] * COUNT), nothing
        ),
    )

    def fill(verbs: Verbs) -> Callable[[int], None]:
        def before(number: int) -> None:
            if not number:
                verbs.put([(f"scanned-{at:06d}", at) for at in range(SCANNED)])

        return before

    yield (
        "scan 20,000 keys",
        SCANNED,
        lambda name, of: Subject(name, fill(of), lambda _: of.scan(), is_answer(SCANNED), nothing),
    )


def _node(stack: ExitStack) -> str:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import cassandra_node

    reason = cassandra_node.missing()
    if reason:
        raise SystemExit(f"No node can be started: {reason}; give --url cassandra://...")
    return stack.enter_context(cassandra_node.running_node()).url("bench")


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="benchmarks.cassandra", description=__doc__)
    parser.add_argument(
        "--url", help="a cluster (cassandra://.../KEYSPACE); two collections are made there and dropped"
    )
    parser.add_argument("--rounds", type=int, default=25, help="pairs of a row")
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    options = parser.parse_args()
    logging.getLogger("cassandra").setLevel(logging.ERROR)
    missed = []
    with ExitStack() as stack:
        url = options.url or _node(stack)
        place = parse_url(url)
        if not isinstance(place, ClusterPlace) or not place.keyspace:
            raise SystemExit("--url has the form cassandra://USER:PASSWORD@HOST:PORT/KEYSPACE")
        engine = CassandraEngine(place.settings)
        stack.callback(engine.close)
        engine.create_keyspace(place.keyspace)
        tables = [CollectionName(place.keyspace, f"bench_{uuid.uuid4().hex[:8]}") for _ in range(2)]
        for table in tables:
            engine.create_collection(table, {"indexing": {"allow": ["_id"]}})
            stack.callback(engine.drop_collection, table)
        ours = stack.enter_context(KVStore(tables[0].name, url))
        # The driver's own session by the same settings: what differs is the way of the statements alone.
        cluster, session = connect(place.settings)
        stack.callback(cluster.shutdown)
        floor = Floor(session, f'"{place.keyspace}"."{tables[1].name}"')
        for name, calls, subject in _rows():
            if options.only not in name:
                continue
            figures = compare(
                [subject("driver", _verbs(floor)), subject(report.OURS, _verbs(ours))],
                rounds=options.rounds,
                least=min(15, options.rounds),
                limit_s=120.0,
            )
            row = report.Result("Apache Cassandra", name, "120 B", "sync", calls, figures)
            print(f"{_line(row)}", flush=True)
            if not all(each.samples for each in figures) or figures[1].ratio(figures[0])[0] > AT_MOST:
                missed.append(name)
    print(f"At most {AT_MOST} times the driver: " + (f"missed by {', '.join(missed)}" if missed else "every row"))


def _line(row: report.Result) -> str:
    driver, ours = row.figures
    if driver.error or ours.error:
        return f"{row.name}: {driver.error or ours.error}"
    middle, low, high = ours.ratio(driver)
    cpu, _, _ = ours.ratio(driver, "cpu_s")
    return (
        f"{row.name}: driver {report.duration(driver.wall_s)}, ours {report.duration(ours.wall_s)},"
        f" ratio {middle:.2f} ({low:.2f}-{high:.2f}), CPU {cpu:.2f}, {len(ours.samples)} pairs"
    )


if __name__ == "__main__":
    main()
