"""What backends over an engine share: their life, the rows that keep records, changes of them, opening a collection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Final, Generic, TypeVar, cast

import orjson

from langchain_kv.backends.base import Change, Found, Kind, Merge, Record, Skimmed, Stored, is_alive
from langchain_kv.backends.collections import PLAIN, CollectionForm
from langchain_kv.backends.documents import check_size, document_of, finder, in_document, in_form, with_new_version
from langchain_kv.engines import base as engines
from langchain_kv.engines.base import KEEP, CollectionName, DocId, Engine, Keep, Row, Settings
from langchain_kv.engines.rows import has_expired, postponed
from langchain_kv.errors import StoreClosedError, StoreError, UnknownCollectionError, UnknownKeyspaceError
from langchain_kv.limits import DOCUMENT_MAX_UTF16
from langchain_kv.runtime.clock import now_ms
from langchain_kv.runtime.slices import Steps, by_bytes

__all__ = [
    "OverEngine",
    "adding",
    "changing",
    "found_all",
    "merging",
    "open_collection",
    "parsed",
    "postponing",
    "rows_in_parts",
    "rows_of",
    "skimmed",
]

SMALL_BYTES: Final = DOCUMENT_MAX_UTF16 // 2
"""What fits into a document whatever it is made of: base64 text is a third longer than its bytes."""

E = TypeVar("E", bound=Engine)


class OverEngine(Generic[E]):
    """The life of a backend over one collection of an engine.

    Args:
        engine: where the documents are; its owner closes it.
        collection: the collection; it must exist, or ``open`` makes it.
        on_close: called by the first ``close`` or ``aclose``.
    """

    def __init__(self, engine: E, collection: CollectionName, *, on_close: Callable[[], None] | None = None) -> None:
        self._collection = collection
        self._opened_engine = engine
        self._on_close = on_close
        self._closed = False

    def __repr__(self) -> str:
        return f"The collection '{self._collection.name}'"

    @property
    def _engine(self) -> E:
        if self._closed:
            raise StoreClosedError(f"The store on collection '{self._collection.name}' was closed; open a new one")
        return self._opened_engine

    def close(self) -> None:
        self._closed = True
        on_close, self._on_close = self._on_close, None
        if on_close is None:
            return
        try:
            on_close()
        except StoreError:  # of the engine, which this was the last to use: the next call tries again
            self._on_close = self._opened_engine.close
            raise


# -- records to rows, and back ----------------------------------------------------------------------------------------


def rows_of(records: Sequence[Record], *, keeps_raw: bool, form: CollectionForm = PLAIN) -> list[Row]:
    """Return the row of each record.

    Args:
        records: what is to be kept.
        keeps_raw: whether the engine keeps values of bytes as they are.
        form: of the collection; one that is not plain keeps no raw values.

    Raises:
        InvalidKeyError: see ``documents.in_form``.
        InvalidValueError: one is larger than the Data API takes.
    """
    if form != PLAIN:
        return [(record.key, in_form(record, form), False, record.expires_at_ms) for record in records]
    write, usual = orjson.dumps, Kind.JSON
    raw = Kind.BYTES if keeps_raw else None
    rows: list[Row] = [
        (record.key, b"".join((b'{"_id":', write(record.key), b',"value":', record.payload, b"}")), False, None)
        if record.kind is usual and record.expires_at_ms is None
        else (record.key, record.payload, True, record.expires_at_ms)
        if record.kind is raw
        else _row_of(record, keeps_raw)
        for record in records
    ]
    if rows and max([len(row[1]) for row in rows]) > SMALL_BYTES:
        for record, row in zip(records, rows, strict=True):
            if len(row[1]) > SMALL_BYTES:
                _row_of(record, keeps_raw)  # refuses it, if it is too large
    return rows


def rows_in_parts(records: Sequence[Record], *, keeps_raw: bool, form: CollectionForm = PLAIN) -> Steps[list[Row]]:
    """As ``rows_of``, in slices."""
    rows: list[Row] = []
    for some in by_bytes(records, _record_bytes):
        if rows:
            yield
        rows += rows_of(some, keeps_raw=keeps_raw, form=form)
    return rows


def _row_of(record: Record, keeps_raw: bool) -> Row:
    is_raw = keeps_raw and record.kind is Kind.BYTES
    if is_raw:
        check_size(record)  # what works here is to work behind a Data API
    return record.key, record.payload if is_raw else document_of(record), is_raw, record.expires_at_ms


def _record_bytes(record: Record) -> int:
    return len(record.payload) // 4  # copying takes less than parsing, by which a slice is measured


def found_all(rows: Sequence[Row | None], now: int) -> list[Stored | None]:
    """Return what each row keeps; None where there is none, or it has expired."""
    raw = Kind.BYTES
    found_in = finder()
    return [  # the usual rows without a call for each
        None
        if row is None
        else (Found(row[1], raw) if row[2] else found_in(row[1]))
        if row[3] is None
        else _found(row, now)
        for row in rows
    ]


def parsed(rows: Sequence[Row | None]) -> Steps[list[Stored | None]]:
    """As ``found_all``, in slices."""
    found: list[Stored | None] = []
    for some in by_bytes(rows, _row_bytes):
        if found:
            yield
        found += found_all(some, now_ms())
    return found


def unparsed(rows: Sequence[Row | None], now: int) -> list[Stored | bytes | None]:
    """As ``found_all``, with the usual documents as text."""
    return [None if row is None else row[1] if row[3] is None and not row[2] else _found(row, now) for row in rows]


def skimmed(rows: Sequence[Row], now: int) -> Skimmed:
    """Return the keys of what has not expired, with the usual documents as text."""
    found = unparsed(rows, now)
    return [(cast("str", row[0]), one) for row, one in zip(rows, found, strict=True) if one is not None]


def _found(row: Row, now: int) -> Stored | None:
    _, body, is_raw, expires_at_ms = row
    stored = Found(body, Kind.BYTES, expires_at_ms) if is_raw else finder()(body)
    return stored if is_alive(stored, now) else None


def _row_bytes(row: Row | None) -> int:
    return len(row[1]) if row else 0


# -- changes of rows --------------------------------------------------------------------------------------------------


def adding(rows: Sequence[Row]) -> tuple[dict[DocId, bool], engines.Change]:
    """Return the change that stores those of the rows whose ids are absent, and its notes: which were, by id."""
    by_id = {row[0]: row for row in rows}
    added = dict.fromkeys(by_id, False)
    now = now_ms()

    def insert(doc_id: DocId, row: Row | None) -> Row | Keep:
        added[doc_id] = row is None or has_expired(row, now)
        return by_id[doc_id] if added[doc_id] else KEEP

    return added, insert


def changing(change: Change, *, keeps_raw: bool, form: CollectionForm = PLAIN) -> engines.Change:
    """Return a change of what is stored as one of rows."""

    def change_row(_: DocId, row: Row | None) -> Row | None:
        record = change(None if row is None else _found(row, now_ms()))
        return None if record is None else rows_of([record], keeps_raw=keeps_raw, form=form)[0]

    return change_row


def merging(
    rows: Sequence[Row], records: Sequence[Record], merge: Merge, *, keeps_raw: bool, form: CollectionForm = PLAIN
) -> engines.Change:
    """Return the change that stores the rows of these records, merged where their ids are there."""
    ending = None if merge.ending is None or form != PLAIN else in_document(merge.ending)
    now = now_ms()

    @cache
    def given() -> dict[DocId, tuple[Row, Record]]:  # of no use where an engine merges by the ending
        return {row[0]: (row, record) for row, record in zip(rows, records, strict=True)}

    def change_row(doc_id: DocId, row: Row | None) -> Row:
        new, record = given()[doc_id]
        if row is None:
            return new
        is_usual = row[3] is None and not row[2]
        if is_usual and ending is not None and record.kind is Kind.JSON and record.expires_at_ms is None:
            text = ending.text_in(row[1])
            if text is not None:
                return new[0], ending.with_text(new[1], text), False, None
        stored = finder()(row[1]) if is_usual else _found(row, now)
        return new if stored is None else rows_of([merge(record, stored)], keeps_raw=keeps_raw, form=form)[0]

    return change_row


def postponing(expires_at_ms: int, form: CollectionForm = PLAIN) -> engines.Change:
    """Return the change that has those rows expire at this moment that expire sooner."""
    now = now_ms()

    def postpone(_: DocId, row: Row | None) -> Row | Keep:
        if row is None or row[3] is None or not now < row[3] < expires_at_ms:
            return KEEP
        new = postponed(row, expires_at_ms)
        return (new[0], with_new_version(new[1]), *new[2:]) if form.atomic else new

    return postpone


# -- collections ------------------------------------------------------------------------------------------------------


def open_collection(
    engine: Engine, collection: CollectionName, *, clear: bool, create_keyspace: bool, form: CollectionForm = PLAIN
) -> Settings:
    """Make a collection that is missing; return the settings in force. Blocks.

    Args:
        engine: where.
        collection: which.
        clear: whether one that is there is dropped first.
        create_keyspace: whether a missing keyspace is made, too.
        form: of one that is made.
    """
    if not clear:
        with suppress(UnknownCollectionError, UnknownKeyspaceError):
            return engine.settings(collection)  # the usual case waits for no other writer
    if create_keyspace:
        engine.create_keyspace(collection.keyspace)
    if clear:
        engine.drop_collection(collection)
    try:
        return engine.create_collection(collection, {"indexing": form.indexing})
    except StoreError as error:
        if clear:
            error.applied = None  # the old one is gone, and the new one is not there
        raise
