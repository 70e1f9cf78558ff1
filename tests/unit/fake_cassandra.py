"""A driver's session and cluster that are none: one collection in memory, and statements that fail as a test says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.cassandra.tables import _COLUMNS

KV = CollectionName("ks", "kv")
COMMENT = {"collection": {"name": "kv", "schema_version": 2, "options": {"indexing": {"deny": ["*"]}}}}

Fault = tuple[str, BaseException] | None
"""When a statement fails, ``before`` or ``after`` it was carried out, and by which error; None: it does not."""


class Clock:
    """Stands for ``time`` and ``asyncio.sleep`` of the engine: only waits move it, and nothing waits for them."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.on_wait: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, delay_s: float) -> None:
        self.now_s += delay_s
        self.on_wait()

    async def asleep(self, delay_s: float) -> None:
        self.sleep(delay_s)


class FakeCassandra:
    """The driver's session on a table that indexes nothing.

    Attributes:
        rows: the ``tx_id`` and the ``doc_json`` by the text of the key.
        decide: says of each statement, by its manner and its key, how it fails.
        schema_fails: what every statement about the schema, and each preparation, raises, or None.
        sent: how often a writing statement for a key was sent.
        applied: how often one was carried out.
    """

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Any, str]] = {}
        self.decide: Callable[[str, str], Fault] = lambda manner, key: None
        self.schema_fails: BaseException | None = None
        self.sent: Counter[str] = Counter()
        self.applied: Counter[str] = Counter()
        self.metadata = SimpleNamespace(partitioner="Murmur3Partitioner")

    def shutdown(self) -> None:
        """End; there is nothing to end."""

    def prepare(self, cql: str) -> str:
        if self.schema_fails:
            raise self.schema_fails
        return cql

    def execute(self, cql: str, *_: Any, **__: Any) -> list[Any]:
        if self.schema_fails:
            raise self.schema_fails
        if cql.startswith("SELECT comment"):
            return [(json.dumps(COMMENT),)]
        return list(_COLUMNS.items()) if "system_schema.columns" in cql else []

    def execute_async(self, cql: str, values: Any, execution_profile: str) -> Answer:
        return Answer(self, cql, values, execution_profile)

    def carry_out(self, cql: str, values: Any) -> list[Any]:
        if cql.startswith("SELECT"):
            keys = [key for _, key in (values[0] if " IN " in cql else [values[0]])]
            found = [((1, key), self.rows[key][1], self.rows[key][0]) for key in keys if key in self.rows]
            return [(row[2],) for row in found] if cql.startswith("SELECT tx_id") else found
        key = key_of(cql, values)
        tx_id = self.rows[key][0] if key in self.rows else None
        if "IF EXISTS" in cql:
            holds = tx_id is not None
        elif "IF NOT EXISTS" in cql:
            holds = tx_id is None
        else:
            holds = " != " in cql or tx_id == values[-1]
        if holds:
            self.applied[key] += 1
            if cql.startswith("DELETE"):
                del self.rows[key]
            else:
                self.rows[key] = (values[0], values[1])
        return [(holds,)]


class Answer:
    """The driver's future."""

    def __init__(self, driver: FakeCassandra, cql: str, values: Any, manner: str) -> None:
        if manner == "write":
            driver.sent[key_of(cql, values)] += 1
        fault = driver.decide(manner, key_of(cql, values))
        self._error = fault[1] if fault else None
        self._rows = driver.carry_out(cql, values) if fault is None or fault[0] == "after" else []

    def add_callbacks(self, callback: Any, errback: Any, callback_args: Any, errback_args: Any) -> None:
        if self._error is None:
            callback(self._rows, *callback_args)
        else:
            errback(self._error, *errback_args)


def key_of(cql: str, values: Any) -> str:
    """Return the text of the key of a statement; that of the first where it names several."""
    keys = [value for value in values if isinstance(value, tuple)] or [values[0][0]]
    return str(keys[0][1])


def doc(key: str, value: int = 1) -> bytes:
    return f'{{"_id":"{key}","value":{value}}}'.encode()


def value_of(driver: FakeCassandra, key: str) -> int | None:
    return json.loads(driver.rows[key][1])["value"] if key in driver.rows else None
