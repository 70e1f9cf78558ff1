"""What the engine does on Cassandra: reading, writing and changing rows by statements that may fail one by one."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple, cast

from langchain_kv.engines.base import KEEP, DocId, Keep
from langchain_kv.engines.cassandra.cluster import Batch, Call, Outcome, Row
from langchain_kv.engines.cassandra.failures import IN_REFUSED
from langchain_kv.engines.cassandra.operation import Operation
from langchain_kv.engines.cassandra.rows import (
    ID_COLUMNS,
    BadRow,
    Key,
    body_of,
    doc_id_of,
    doc_json,
    is_json,
    key_of,
    new_tx_id,
    shown_id,
)
from langchain_kv.engines.cassandra.shredding import fields_of, filters_of
from langchain_kv.engines.cassandra.tables import Table
from langchain_kv.engines.cassandra.vectors import vector_in
from langchain_kv.engines.ids import check_text
from langchain_kv.engines.rows import ChangeDocument
from langchain_kv.engines.vectors import VECTOR
from langchain_kv.errors import (
    DataAPIError,
    InvalidKeyError,
    PartialWriteError,
    StoreError,
    UnknownCollectionError,
    UnknownKeyspaceError,
)
from langchain_kv.runtime.slices import by_bytes, next_turn

__all__ = ["delete", "good_bodies", "modify", "read_rows", "reading", "rows_by_id", "settle", "write"]

WRITES_AT_ONCE: Final = 64
"""Writes on their way (measured: more are no faster)."""

READS_AT_ONCE: Final = 8
"""Reads of many keys each on their way, which bounds what their answers take of memory."""

SINGLES_AT_ONCE: Final = 64
"""Reads of one key each on their way."""

MODIFY_FOR_S: Final = 20.0
"""Seconds that a change is tried while other writers are faster."""


class Change(NamedTuple):
    """A statement that changes a row.

    Attributes:
        call: the statement, with a condition.
        mark: the new ``tx_id`` that it would leave; None where it would leave no row.
    """

    call: Call
    mark: uuid.UUID | None = None


# -- reading --------------------------------------------------------------------------------------------------------


async def reading(
    operation: Operation, calls: Sequence[Call], width: int, manner: Literal["read", "nearest"] = "read"
) -> list[list[Row]]:
    """Run reading statements, those that fail in passing again until the deadline; return the rows of each, in order.

    Raises:
        StoreError: what a statement met in the end.
    """
    outcomes = dict(enumerate(await operation.outcomes(Batch(calls, manner, width))))
    for tries in itertools.count():
        errors = {at: outcome for at, outcome in outcomes.items() if isinstance(outcome, StoreError)}
        final = next((error for error in errors.values() if not error.retryable), None)
        if final is not None:
            raise final
        if not errors:
            break
        if not await operation.may_try_again(tries):
            raise next(iter(errors.values()))
        again = await operation.outcomes(Batch([calls[at] for at in errors], manner, width))
        outcomes.update(zip(errors, again, strict=True))
    return cast("list[list[Row]]", list(outcomes.values()))


async def read_rows(operation: Operation, ids: Sequence[DocId]) -> list[bytes | BadRow | None]:
    """Return the body of each id, in order (repeats allowed); None where there is no row, BadRow where it is none."""
    check_text(ids)
    found = await rows_by_id(operation, dict.fromkeys(ids), "read")
    bodies = {doc_id: body_of(row[0], row[1]) for doc_id, row in found.items()}
    return [bodies.get(doc_id) for doc_id in ids]


def good_bodies(ids: Sequence[DocId], rows: Sequence[bytes | BadRow | None]) -> list[bytes | None]:
    """Return the bodies as they are.

    Raises:
        DataAPIError: DOCUMENT_FROM_DB_UNPARSEABLE, which names the ids, where one is a BadRow or no JSON object.
    """
    good: list[bytes | None] = []
    bad: dict[DocId, str] = {}
    for doc_id, row in zip(ids, rows, strict=True):
        if isinstance(row, BadRow):
            bad[doc_id] = row.reason
        elif row is not None and not is_json(row):
            bad[doc_id] = "its doc_json is not a JSON object"
        else:
            good.append(row)
    if not bad:
        return good
    named = "; ".join(f"{shown_id(doc_id)}: {reason}" for doc_id, reason in list(bad.items())[:3])
    more = f" (and {len(bad) - 3} more)" if len(bad) > 3 else ""
    error = DataAPIError.of(
        "DOCUMENT_FROM_DB_UNPARSEABLE", f"Rows that another program wrote are no documents: {named}{more}."
    )
    error.applied = False
    raise error


async def rows_by_id(
    operation: Operation, ids: Iterable[DocId], name: Literal["read", "look", "similar"], *values: Any
) -> dict[DocId, Row]:
    """Return what a statement selects of the rows of those ids that have one; ``values`` come before the keys."""
    in_chunk = operation.session.settings.in_chunk
    keys = {key: doc_id for doc_id in ids if (key := key_of(doc_id)) is not None}
    rows: list[list[Row]] = []
    is_single = len(keys) == 1 or in_chunk == 1 or operation.table.in_refused
    if not is_single:
        many = await operation.statement(f"{name}_many")
        listed = list(keys)
        chunks = [listed[start : start + in_chunk] for start in range(0, len(listed), in_chunk)]
        try:
            rows = await reading(operation, [(many, (*values, chunk)) for chunk in chunks], READS_AT_ONCE)
        except DataAPIError as error:
            if error.code != IN_REFUSED:
                raise
            is_single = operation.table.in_refused = True  # by a guardrail of the cluster: it stays so
    if is_single:
        one = await operation.statement(f"{name}_one")
        rows = await reading(operation, [(one, (*values, key)) for key in keys], SINGLES_AT_ONCE)
    return {keys[tuple(row[0])]: row for answer in rows for row in answer}


# -- writing --------------------------------------------------------------------------------------------------------


async def write(operation: Operation, documents: Sequence[tuple[DocId, bytes]]) -> None:
    """Store every document by one conditional statement each, whose condition always holds.

    Raises:
        PartialWriteError: some were not, or may not have been, stored.
    """
    operation.table.require_writable()
    check_text(doc_id for doc_id, _ in documents)
    changes: dict[DocId, Change] = {}
    for some in by_bytes(list(dict(documents).items()), lambda document: len(document[1])):
        if changes:
            await next_turn()
        for doc_id, body in some:
            key, mark = _written_key(doc_id), new_tx_id()
            statement = await operation.statement("upsert", key[0])
            changes[doc_id] = Change((statement, (*_columns(operation.table, key, mark, body), key)), mark)
    outcomes = await _writing(operation, changes)
    for doc_id, outcome in outcomes.items():
        if not isinstance(outcome, StoreError) and not outcome[0][0]:
            outcomes[doc_id] = _never_applied(doc_id)
    settle(outcomes, "stored")


async def delete(operation: Operation, ids: Sequence[DocId]) -> int:
    """Remove the rows that exist, one conditional statement each; return how many there were.

    Raises:
        PartialWriteError: some were not, or may not have been, removed.
    """
    operation.table.require_writable()
    check_text(ids)
    statement = await operation.statement("delete")
    keys = {doc_id: key_of(doc_id) for doc_id in ids}
    changes = {doc_id: Change((statement, (key,))) for doc_id, key in keys.items() if key is not None}
    outcomes = await _writing(operation, changes)
    settle(outcomes, "removed")
    return sum(1 for outcome in outcomes.values() if not isinstance(outcome, StoreError) and outcome[0][0])


def _written_key(doc_id: DocId) -> Key:
    key = key_of(doc_id)
    if key is None:
        raise InvalidKeyError(f"{shown_id(doc_id)} cannot be an id on Apache Cassandra: use a text.")
    return key


def _columns(table: Table, key: Key, mark: uuid.UUID, body: bytes, *, is_new: bool = True) -> tuple[Any, ...]:
    """Return the values of a row in the order of its columns in a statement, but the key."""
    text = doc_json(key, body)
    if table.indexes_more:
        fields = fields_of(text.encode())
        vector = (vector_in(table.vectors, doc_id_of(key), fields.get(VECTOR, b"null")),) if table.vectors else ()
        return (mark, text, *vector, *filters_of(fields, table.indexing))
    return (mark, text, {"_id"}, ID_COLUMNS[key[0]][1](key[1])) if table.indexes_only_id and is_new else (mark, text)


async def _writing(operation: Operation, changes: dict[DocId, Change]) -> dict[DocId, Outcome]:
    """Run writing statements, and go on until the deadline with what failed in passing; return what came of each.

    Sent again is only what certainly did not happen. An outcome that is not known is asked for, and stays unknown until
    that is answered: nothing that fails later makes it surer.
    """
    outcomes: dict[DocId, Outcome] = {}
    left = list(changes)
    asked: set[DocId] = set()  # those of which a serial read has said all that can be known
    for tries in itertools.count():
        if left:
            sending = [changes[doc_id].call for doc_id in left]
            sizes = [sum(len(value) for value in values if isinstance(value, str)) for _, values in sending]
            answers = await operation.outcomes(Batch(sending, "write", WRITES_AT_ONCE, sizes))
            outcomes.update(zip(left, answers, strict=True))
        await _find_out(operation, changes, outcomes, asked)
        left = [doc_id for doc_id in changes if _did_not_happen(outcomes[doc_id])]
        if not (left or _unknown(outcomes, asked)) or not await operation.may_try_again(tries):
            break
    return {doc_id: outcomes[doc_id] for doc_id in changes}


def _did_not_happen(outcome: Outcome) -> bool:
    """Whether a write failed in passing, and certainly changed nothing."""
    return isinstance(outcome, StoreError) and outcome.retryable and outcome.applied is False


def _unknown(outcomes: dict[DocId, Outcome], asked: set[DocId]) -> list[DocId]:
    """Return the ids whose outcome is not known, and of which a serial read may still tell it."""
    return [
        doc_id
        for doc_id, outcome in outcomes.items()
        if isinstance(outcome, StoreError) and outcome.applied is None and doc_id not in asked
    ]


async def _find_out(
    operation: Operation, changes: dict[DocId, Change], outcomes: dict[DocId, Outcome], asked: set[DocId]
) -> None:
    """Settle unknown outcomes by a serial read, which completes the writes that are on their way.

    A row with the own ``tx_id`` was written. One that is gone, where it was to go, was removed. Anything else stays
    unknown: another writer may have come after the own write, or the own one may never have happened. So does what
    could not be asked.
    """
    unknown = _unknown(outcomes, asked)
    if not unknown:
        return
    settle = await operation.statement("settle")
    calls = [(settle, (key_of(doc_id),)) for doc_id in unknown]
    answers = await operation.outcomes(Batch(calls, "serial", SINGLES_AT_ONCE))
    for doc_id, answer in zip(unknown, answers, strict=True):
        if isinstance(answer, StoreError):
            if not answer.retryable:
                asked.add(doc_id)
            continue
        asked.add(doc_id)
        mark = changes[doc_id].mark
        if (mark is None and not answer) or (mark is not None and answer and answer[0][0] == mark):
            outcomes[doc_id] = [(True,)]


def _never_applied(doc_id: DocId) -> StoreError:
    return DataAPIError.of(
        "INVALID_DATABASE_QUERY",
        f"The row of {shown_id(doc_id)} has a tx_id that stands for no row, so it cannot be replaced: delete the key,"
        " then store it again.",
    )


def settle(outcomes: dict[DocId, Outcome], done: str) -> None:
    """Raise what went wrong: the error of the whole batch where all keys failed by it, else one that names the keys."""
    errors = {doc_id: outcome for doc_id, outcome in outcomes.items() if isinstance(outcome, StoreError)}
    if not errors:
        return
    first = next(iter(errors.values()))
    if len(errors) == len(outcomes) and all(error.applied is False for error in errors.values()):
        for error in errors.values():
            if isinstance(error, UnknownCollectionError | UnknownKeyspaceError):
                raise error
    reasons = {(type(error), getattr(error, "code", ""), error.applied) for error in errors.values()}
    if len(errors) == len(outcomes) and len(reasons) == 1:
        raise first
    raise PartialWriteError.of(
        done,
        written=tuple(_name(doc_id) for doc_id in outcomes if doc_id not in errors),
        unwritten=tuple(_name(doc_id) for doc_id, error in errors.items() if error.applied is False),
        unknown=tuple(_name(doc_id) for doc_id, error in errors.items() if error.applied is not False),
        errors={_name(doc_id): error for doc_id, error in errors.items()},
        shown=shown_id,
        is_repeatable=done != "changed",
    )


def _name(doc_id: DocId) -> str:
    return doc_id if isinstance(doc_id, str) else shown_id(doc_id)


# -- changing ---------------------------------------------------------------------------------------------------------


async def modify(operation: Operation, ids: Sequence[DocId], change: ChangeDocument) -> None:
    """Apply ``change`` to each id: read, then write on the condition that the row is as it was; again where it is not.

    Raises:
        DataAPIError: DOCUMENT_FROM_DB_UNPARSEABLE where a row is no document; FAILED_CONCURRENT_OPERATIONS where others
            were faster all the time.
        PartialWriteError: some were not, or may not have been, changed.
    """
    operation.table.require_writable()
    check_text(ids)
    if not ids:
        return
    outcomes: dict[DocId, Outcome] = {}
    left: Sequence[DocId] = ids
    deadline = time.monotonic() + MODIFY_FOR_S
    pause_s = 0.005
    while True:
        try:
            changes = await _plan(operation, left, change)
        except Exception as error:
            if not outcomes.keys() - set(left):  # nothing has happened to any document
                raise
            outcomes.update(dict.fromkeys(left, _not_changed(error)))
            break
        answers = await _writing(operation, changes)
        outcomes.update(answers)
        lost = {doc_id for doc_id, answer in answers.items() if not isinstance(answer, StoreError) and not answer[0][0]}
        left = [doc_id for doc_id in left if doc_id in lost]
        if not left:
            break
        if time.monotonic() > deadline:
            outcomes.update({doc_id: _overtaken(doc_id) for doc_id in lost})
            break
        await asyncio.sleep(pause_s * random.random())  # noqa: S311 - spreads writers, protects nothing
        pause_s = min(pause_s * 2, 0.5)
    settle(outcomes, "changed")


async def _plan(operation: Operation, ids: Sequence[DocId], change: ChangeDocument) -> dict[DocId, Change]:
    """Read the rows, ask ``change`` what becomes of each, and return the statements that do it."""
    seen = await rows_by_id(operation, dict.fromkeys(ids), "look")
    wanted: dict[DocId, bytes | Keep | None] = {}
    bodies: dict[DocId, bytes | None] = {doc_id: _strict_body(doc_id, row) for doc_id, row in seen.items()}
    for doc_id in ids:
        new = change(doc_id, bodies.get(doc_id))
        if new is not KEEP:
            wanted[doc_id] = bodies[doc_id] = new
    changes = {doc_id: await _changed(operation, doc_id, body, seen.get(doc_id)) for doc_id, body in wanted.items()}
    return {doc_id: made for doc_id, made in changes.items() if made is not None}


async def _changed(operation: Operation, doc_id: DocId, body: Any, row: Row | None) -> Change | None:
    """Return the statement that changes a row if it still is as it was; None where there is nothing to do."""
    if body is None:
        return None if row is None else Change((await operation.statement("remove"), (row[0], row[2])))
    key, mark = _written_key(doc_id), new_tx_id()
    if row is None:
        statement = await operation.statement("insert", key[0])
        return Change((statement, (*_columns(operation.table, key, mark, body), key)), mark)
    statement = await operation.statement("replace")
    return Change((statement, (*_columns(operation.table, key, mark, body, is_new=False), key, row[2])), mark)


def _not_changed(error: Exception) -> StoreError:
    """Return what a failure means for documents of which nothing had been changed yet."""
    failure = error if isinstance(error, StoreError) else StoreError(f"The change failed ({type(error).__name__}).")
    failure.applied = False
    if failure is not error:
        failure.__cause__ = error
    return failure


def _strict_body(doc_id: DocId, row: Row) -> bytes:
    body = body_of(row[0], row[1])
    (good,) = good_bodies([doc_id], [body])
    return good or b""


def _overtaken(doc_id: DocId) -> StoreError:
    error = DataAPIError.of(
        "FAILED_CONCURRENT_OPERATIONS",
        f"Other writers changed the document {shown_id(doc_id)} faster, for {MODIFY_FOR_S:.0f} seconds: try again.",
    )
    error.applied = False
    return error
