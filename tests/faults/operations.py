"""The operations of the fault matrix: the call, what it is to leave behind, and what part of it a fault can meet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from faults.proxy import Misbehaving, Request
from langchain_kv.backends.base import Record
from langchain_kv.backends.dataapi.backend import DataAPIBackend

__all__ = ["OPERATIONS", "Outcome", "Operation", "keys_of", "perform"]

OLD, NEW = "marked-old-value", "marked-new-value"
THERE = [f"k{n:02d}" for n in range(22)]
"""The keys that are there before each operation: more than one deleteMany takes."""
PAGE_SIZE = 12
IN_MAX = 25
INSERT_MANY_MAX = 6
"""Small, so that little work makes several requests."""


class Outcome(NamedTuple):
    """How an operation ended: what it returned or yielded, and what it raised, or None."""

    result: list[Any]
    error: Exception | None


class Operation(NamedTuple):
    """What is called, and what is to come of it.

    Attributes:
        verb: the backend's method; its twin with a leading ``a`` is called too.
        arguments: its positional arguments; ``options`` the others.
        wanted: the state after success of each key that is written (None: gone), or of the collection ``c``
            (True: it is there); empty for an operation that reads.
        part: tells the requests of a proper part of the operation, or None where it is one request only.
        is_missing: whether the collection is missing at first.
        is_only_in_part: whether it differs from another operation in its part alone.
    """

    verb: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    wanted: dict[str, Any] = {}  # noqa: RUF012
    part: Callable[[Request], bool] | None = None
    is_missing: bool = False
    is_only_in_part: bool = False

    def prepare(self, server: Misbehaving) -> None:
        server.page_size = PAGE_SIZE
        if self.is_missing:
            server.settings.clear()
        else:
            server.plant(**dict.fromkeys(THERE, OLD))

    def state(self, server: Misbehaving) -> dict[str, Any]:
        """Return what is stored now of everything in ``wanted``."""
        if self.verb == "open":
            return {"c": "c" in server.settings}
        values = server.values()
        return {key: values.get(key) for key in self.wanted}

    def wrong_result(self, result: list[Any]) -> str | None:
        """Say what is wrong with the result of a success, None where nothing is."""
        right: list[Any]
        found: list[Any]
        if self.verb == "get_many":
            right = [OLD if key in THERE else None for key in self.arguments[0]]
            found = [stored and stored.value for stored in result]
        elif self.verb == "scan":
            value = OLD if self.options["values"] else None
            right = [(key, value) for key in THERE]
            found = sorted((key, stored and stored.value) for key, stored in result)
        else:
            right, found = [], result
        return None if found == right else f"it returned {found}"


def keys_of(request: Request) -> set[str]:
    """Return what the request writes: keys, or ``c`` for the collection."""
    if request.name == "insertMany":
        return {document["_id"] for document in request.options["documents"]}
    if request.name == "findOneAndReplace":
        return {request.options["filter"]["_id"]}
    if request.name == "deleteMany":
        return set(request.options["filter"]["_id"]["$in"])
    return {"c"} if request.name.endswith("Collection") else set()


def perform(
    backend: DataAPIBackend, operation: Operation, mode: str, begin: Callable[[], None], *, is_warm: bool
) -> Outcome:
    """Run the operation, sync or async, close the backend, and return how it ended.

    Args:
        backend: fresh.
        operation: what to run.
        mode: ``sync`` or ``async``.
        begin: called right before it.
        is_warm: whether connections are made before that.
    """
    result: list[Any] = []
    keys = [*THERE, *_ABSENT]  # two requests at once: two connections
    options = {**operation.options}

    def plain() -> None:
        try:
            if is_warm:
                backend.get_many(keys)
            begin()
            answer = getattr(backend, operation.verb)(*operation.arguments, **options)
            if operation.verb.startswith("scan"):
                for page in answer:
                    result.extend(page)
            else:
                result.extend(answer or [])
        finally:
            backend.close()

    async def coroutine() -> None:
        try:
            if is_warm:
                await backend.aget_many(keys)
            begin()
            answer = getattr(backend, "a" + operation.verb)(*operation.arguments, **options)
            if operation.verb.startswith("scan"):
                async for page in answer:
                    result.extend(page)
            else:
                result.extend(await answer or [])
        finally:
            await backend.aclose()

    try:
        plain() if mode == "sync" else asyncio.run(coroutine())
    except Exception as error:
        return Outcome(result, error)
    return Outcome(result, None)


def _put(keys: list[str], part: Callable[[Request], bool] | None = None) -> Operation:
    records = [Record(key, json.dumps(NEW).encode()) for key in keys]
    return Operation("put_many", (records,), wanted=dict.fromkeys(keys, NEW), part=part)


def _is_upsert_of_k01(request: Request) -> bool:
    return request.name == "findOneAndReplace" and keys_of(request) == {"k01"}


def _writes(key: str) -> Callable[[Request], bool]:
    return lambda request: key in keys_of(request)


def _is_later_page(request: Request) -> bool:
    return b"pageState" in request.body


_NEW_KEYS = [f"n{n:02d}" for n in range(9)]
_ABSENT = [f"m{n:02d}" for n in range(10)]

OPERATIONS: dict[str, Operation] = {
    "get": Operation("get_many", ([*THERE, *_ABSENT],), part=lambda request: b'"m09"' in request.body),
    "put 1": _put(["k01"]),
    "put 2": _put(["n00", "k01"], _is_upsert_of_k01),
    "put 6 new": _put(_NEW_KEYS[:6]),
    "put 6 existing": _put(THERE[:6], _is_upsert_of_k01),
    "put 6 mixed": _put([*THERE[:3], *_NEW_KEYS[:3]], _is_upsert_of_k01),
    "put 9 new": _put(_NEW_KEYS, _writes("n00")),
    "put 9 new, second chunk": _put(_NEW_KEYS, _writes("n08"))._replace(is_only_in_part=True),
    "delete": Operation(
        "delete_many", ([*THERE, "absent"],), wanted=dict.fromkeys([*THERE, "absent"]), part=_writes("k21")
    ),
    "keys": Operation("scan", ("",), {"values": False}, part=_is_later_page),
    "items": Operation("scan", ("",), {"values": True}, part=_is_later_page),
    "setup, exists": Operation("open", wanted={"c": True}),
    "setup, missing": Operation(
        "open", wanted={"c": True}, part=lambda request: request.name == "createCollection", is_missing=True
    ),
    "setup, deletes first": Operation(
        "open",
        options={"clear": True},
        wanted={"c": True},
        part=lambda request: request.name == "createCollection",
    ),
}
