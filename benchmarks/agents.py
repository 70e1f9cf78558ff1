"""What memory for agents costs: ours, LangGraph's stores, and the bare SQL.

``python -m benchmarks.agents`` prints the tables of docs/langgraph.md: 10,000 items of 200 bytes in 100 namespaces, in
batches of 500, each row measured in turn, every answer compared. ``--postgresql URL`` adds that of a server, whose
tables ``store`` and ``langchain_kv`` are removed before.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from langgraph.store.base import BaseStore, GetOp, Item, PutOp, SearchItem
from langgraph.store.postgres import PostgresStore
from langgraph.store.sqlite import AsyncSqliteStore, SqliteStore

from benchmarks.measure import Figures, Subject, compare
from langchain_kv import LangGraphStore

COUNT = 10_000
BATCH = 500
PAGE = 100
SINGLES = 200
"""One-key writes of a sample."""

READS = 1_000
"""One-key reads of a sample."""

NAMES = [(("users", f"u{number % 100:03}"), f"k{number:06}") for number in range(COUNT)]
TREE = ("users",)


def values(number: int) -> list[dict[str, Any]]:
    """Return the value of each item in a round."""
    return [{"text": f"{'x' * 150}{at}", "n": at, "round": number} for at in range(COUNT)]


class BareSQL:
    """sqlite3 and orjson, with the settings that our files have; checks nothing, and pages in the order of keys."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        for setting in ("journal_mode=WAL", "synchronous=FULL"):
            self._db.execute(f"PRAGMA {setting}")
        self._db.execute("CREATE TABLE s(key TEXT PRIMARY KEY, value BLOB, created TEXT, updated TEXT) WITHOUT ROWID")

    def batch(self, ops: list[Any]) -> list[Any]:
        keys = [f"{'.'.join(op.namespace)}\0{op.key}" for op in ops]
        if isinstance(ops[0], PutOp):
            now = datetime.now(UTC).isoformat()
            rows = [(key, orjson.dumps(op.value), now, now) for key, op in zip(keys, ops, strict=True)]
            if len(rows) > 1:
                self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT INTO s VALUES(?,?,?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value,"
                " updated=excluded.updated",
                rows,
            )
            if len(rows) > 1:
                self._db.execute("COMMIT")
            return [None] * len(ops)
        marks = ",".join("?" * len(keys))
        found = {row[0]: row for row in self._db.execute(f"SELECT * FROM s WHERE key IN ({marks})", keys)}
        return [
            Item(
                value=orjson.loads(row[1]),
                key=op.key,
                namespace=op.namespace,
                created_at=datetime.fromisoformat(row[2]),
                updated_at=datetime.fromisoformat(row[3]),
            )
            for row, op in ((found[key], op) for key, op in zip(keys, ops, strict=True))
        ]

    def pages(self) -> int:
        """Read all, page by page; return how many there were."""
        last, count = "", 0
        select = f"SELECT * FROM s WHERE key>? ORDER BY key LIMIT {PAGE}"
        while rows := self._db.execute(select, (last,)).fetchall():
            for key, value, created, updated in rows:
                namespace, _, name = key.partition("\0")
                moments = datetime.fromisoformat(created), datetime.fromisoformat(updated)
                SearchItem(tuple(namespace.split(".")), name, orjson.loads(value), *moments)
            count += len(rows)
            last = rows[-1][0]
        return count

    def close(self) -> None:
        self._db.close()


class Stored:
    """A store of LangGraph's interface."""

    def __init__(self, store: BaseStore, close: Callable[[], object]) -> None:
        self.store = store
        self.batch = store.batch
        self.close = close

    def pages(self) -> int:
        """Read all, page by page; return how many there were."""
        count = 0
        while found := self.store.search(TREE, limit=PAGE, offset=count):
            count += len(found)
        return count


def _ours(url: str) -> Stored:
    store = LangGraphStore(url)
    return Stored(store, store.close)


def _sqlite_store(file: Path) -> Stored:
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    store = SqliteStore(connection)
    store.setup()
    return Stored(store, connection.close)


def _postgres_store(url: str) -> Stored:
    stack = ExitStack()
    store = stack.enter_context(PostgresStore.from_conn_string(url))
    store.setup()
    return Stored(store, stack.close)


def _put(store: Any, items: list[Any], some: list[dict[str, Any]], size: int) -> None:
    for start in range(0, len(some), size):
        pairs = zip(items[start : start + size], some[start : start + size], strict=True)
        store.batch([PutOp(*name, value) for name, value in pairs])


def _get(store: Any, count: int, size: int) -> list[Any]:
    names = NAMES[:count]
    return [
        item.value
        for start in range(0, count, size)
        for item in store.batch([GetOp(*name, False) for name in names[start : start + size]])
    ]


def _nothing(*_: object) -> None:
    pass


def _rows(contenders: dict[str, Any], rounds: int) -> dict[str, list[Figures]]:
    """Measure each call. What a row needs to be there was stored by those before it."""
    own = [[("fresh", f"u{number % 100:03}"), f"{number}"] for number in range(COUNT)]

    def fresh(number: int) -> list[Any]:
        return [((*namespace, f"r{number}"), key) for namespace, key in own]

    def check_values(number: int, found: Any) -> None:
        assert found == values(0)[: len(found)], number

    def check_count(_: int, count: Any) -> None:
        assert count == COUNT

    works: dict[str, tuple[Callable[[Any, int], Any], Callable[[int, Any], None]]] = {
        "put again": (lambda store, number: _put(store, NAMES, values(0), BATCH), _nothing),
        "get": (lambda store, number: _get(store, COUNT, BATCH), check_values),
        "search for all, by pages of 100": (lambda store, number: store.pages(), check_count),
        "put one again": (lambda store, number: _put(store, NAMES, values(0)[:SINGLES], 1), _nothing),
        "get one": (lambda store, number: _get(store, READS, 1), check_values),
        "put new": (lambda store, number: _put(store, fresh(number), values(0), BATCH), _nothing),
        "put one new": (lambda store, number: _put(store, fresh(-1 - number), values(0)[:SINGLES], 1), _nothing),
    }
    for store in contenders.values():
        _put(store, NAMES, values(-1), BATCH)
    limits = {"rounds": rounds, "least": rounds, "peers_least": min(rounds, 3), "limit_s": 60.0}
    return {
        row: compare(
            [
                Subject(name, _nothing, lambda number, store=store, work=work: work(store, number), check, _nothing)
                for name, store in contenders.items()
            ],
            **limits,
        )
        for row, (work, check) in works.items()
    }


def _at_once(folder: Path, rounds: int) -> list[Figures]:
    """Measure reads by coroutines, 64 at once."""
    with asyncio.Runner() as runner:
        theirs = AsyncSqliteStore.from_conn_string(str(folder / "at_once.db"))
        peer = runner.run(theirs.__aenter__())
        runner.run(peer.setup())
        stores = {
            "`AsyncSqliteStore`": peer,
            "`LangGraphStore`": LangGraphStore(f"sqlite:{folder / 'at_once_ours.db'}"),
        }
        for store in stores.values():
            puts = [PutOp(*name, value) for name, value in zip(NAMES[:READS], values(0)[:READS], strict=True)]
            runner.run(store.abatch(puts))

        def subject(name: str, store: BaseStore) -> Subject:
            async def work(_: int) -> list[Any]:
                found: list[Any] = []
                for start in range(0, READS, 64):
                    reads = [store.aget(*each) for each in NAMES[start : min(start + 64, READS)]]
                    found += [item.value for item in await asyncio.gather(*reads) if item is not None]
                return found

            def check(_: int, found: Any) -> None:
                assert found == values(0)[:READS]

            return Subject(name, _nothing, work, check, _nothing)

        figures = compare([subject(*each) for each in stores.items()], rounds=rounds, runner=runner, least=rounds)
        runner.run(theirs.__aexit__(None, None, None))
        stores["`LangGraphStore`"].close()  # type: ignore[attr-defined]
    return figures


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="benchmarks.agents", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--postgresql", metavar="URL")
    options = parser.parse_args()
    logging.disable()
    with tempfile.TemporaryDirectory(prefix="agents") as temporary:
        folder = Path(temporary)
        contenders = {
            "bare SQL": BareSQL(folder / "bare.db"),
            "`LangGraphStore`": _ours(f"sqlite:{folder / 'ours.db'}"),
            "`SqliteStore`": _sqlite_store(folder / "theirs.db"),
        }
        show(_rows(contenders, options.rounds))
        show({"get, 64 at once": _at_once(folder, options.rounds)})
        for store in contenders.values():
            store.close()
    if options.postgresql:
        import psycopg

        with psycopg.connect(options.postgresql) as connection:
            connection.execute("DROP TABLE IF EXISTS store, store_migrations, langchain_kv")
        contenders = {
            "`PostgresStore`": _postgres_store(options.postgresql),
            "`LangGraphStore`": _ours(options.postgresql),
        }
        show(_rows(contenders, options.rounds))
        for store in contenders.values():
            store.close()


def show(rows: dict[str, list[Figures]]) -> None:
    """Print the processor time of each, and its ratio to the first one's: the median of the pairs', with quartiles."""
    names = [each.name for each in next(iter(rows.values()))]
    print("\n| | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for row, found in rows.items():
        cells = [row]
        by_name = {each.name: each for each in found}
        for name in names:
            own = by_name.get(name)
            if own is None or own.error:
                cells.append("-" if own is None else own.error)
                continue
            middle, low, high = own.ratio(found[0], "cpu_s")
            wall = own.ratio(found[0])[0]
            ratio = "" if own is found[0] else f", **{middle:.2f}** ({low:.2f}-{high:.2f}), wall {wall:.2f}"
            cells.append(f"{own.cpu_s * 1e3:.0f} ms{ratio}")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
