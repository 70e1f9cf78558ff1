"""What each verb sends to MongoDB, written once for both kinds of client, and what its errors mean."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import pymongo
from bson.datetime_ms import DatetimeMS
from bson.errors import BSONError
from pymongo import errors as mongo

from langchain_kv.backends.base import Change, Page, Record, Stored, alive_of, is_alive
from langchain_kv.backends.mongodb_documents import (
    DOCUMENT_MAX_BYTES,
    EXPIRY,
    Document,
    as_it_was,
    document_of,
    found_in,
    parsed,
)
from langchain_kv.errors import (
    AuthError,
    ConfigError,
    ConnectError,
    DataAPIError,
    InvalidValueError,
    PartialWriteError,
    RequestTimeoutError,
    StoreClosedError,
    StoreError,
    TransportError,
)
from langchain_kv.runtime.clock import now_ms
from langchain_kv.runtime.plans import PAUSE, Plan, Step
from langchain_kv.runtime.slices import by_bytes
from langchain_kv.values.keys import shown

__all__ = ["KEY_MAX_BYTES", "Verbs", "translated"]

T = TypeVar("T")

_logger = logging.getLogger("langchain_kv")

KEY_MAX_BYTES: Final = 1_000_000
"""Bytes of a key; MongoDB itself bounds the document only."""

CHUNK: Final = 1_000
"""Keys of one request."""

CHUNK_BYTES: Final = DOCUMENT_MAX_BYTES
"""Bytes of the documents of one request: a message may have three times as many."""

VALUES_PAGE: Final = 100
"""Documents of a page with values; the server ends it before, at 16 MiB."""

FIRST_CONTACT_S: Final = 10.0
"""Seconds that a set-up waits for a server: as long as replicas take to choose a new primary."""

RACES_MAX: Final = 1_000
"""Attempts of an update, with each of which another writer may be faster."""

UPSERTS_MAX: Final = 10
"""Attempts to store what another creates and removes at the same time."""

_EXISTS: Final = 11_000


class Verbs:
    """Plans of calls on one collection.

    Args:
        collection: pymongo's, of either kind of client.
    """

    def __init__(self, collection: Any) -> None:
        # With w=0 what became of a write could not be told.
        answered = {} if collection.write_concern.acknowledged else {"write_concern": pymongo.WriteConcern(1)}
        self._collection = collection.with_options(**answered)
        self._has_index = False
        self.name: str = collection.name

    # -- reading ------------------------------------------------------------------------------------------------------

    def get_many(self, keys: Sequence[str]) -> Plan[list[Stored | None]]:
        """See ``Backend``."""
        found: dict[str, Stored] = {}
        now = now_ms()
        for some in _chunks(keys, lambda key: len(key.encode())):
            for batch in (yield from self._find({"_id": {"$in": list(some)}})):
                found.update((document["_id"], found_in(document)) for document in parsed(batch))
                yield PAUSE
        return alive_of(found, keys, now)

    def page(self, prefix: str, after: str | None, *, values: bool) -> Plan[tuple[Page, str | None]]:
        """Return the next items in the order of the keys, and the last key, None at the end.

        Each page is a query of its own, so that no cursor is open in between. It ends with its number of documents, or
        where the server's answer does, at 16 MiB.
        """
        limit = VALUES_PAGE if values else CHUNK
        fields = None if values else {"_id": 1}
        find = partial(self._collection.find_raw_batches, _alive(_with(prefix, after)), fields)
        find = partial(find, sort=[("_id", 1)], limit=limit, batch_size=limit)
        batch, has_more = yield from self._made(partial(_first, find), partial(_afirst, find))
        documents = parsed(batch)
        page: Page = [(document["_id"], found_in(document) if values else None) for document in documents]
        return page, page[-1][0] if page and (has_more or len(page) == limit) else None

    def count(self, prefix: str) -> Plan[int]:
        """See ``Backend``."""
        count: int = yield from self._call(self._collection.count_documents, _alive(_with(prefix)))
        return count

    # -- writing ------------------------------------------------------------------------------------------------------

    def put_many(self, records: Sequence[Record]) -> Plan[None]:
        """See ``Backend``."""
        documents = yield from self._documents(records)
        outcome = _Outcome(documents)
        for some in _chunks(records, lambda record: len(record.payload)):
            yield from self._put({record.key: documents[record.key] for record in some}, outcome)
        outcome.settle("stored")

    def _put(self, documents: dict[str, Document], outcome: _Outcome) -> Plan[None]:
        left = list(documents)
        for _ in range(UPSERTS_MAX):  # two upserts of one new key: the one that comes second is told that it exists
            writes: list[Any] = [pymongo.ReplaceOne({"_id": key}, documents[key], upsert=True) for key in left]
            call = partial(self._collection.bulk_write, writes, ordered=False)
            left = yield from self._write(call, left, outcome)
            if not left:
                return
        outcome.fail(left, _overtaken(left[0]))

    def delete_many(self, keys: Sequence[str]) -> Plan[None]:
        """See ``Backend``."""
        outcome = _Outcome(keys)
        for some in _chunks(keys, lambda key: len(key.encode())):
            call = partial(self._collection.delete_many, {"_id": {"$in": list(some)}})
            yield from self._write(call, some, outcome)
        outcome.settle("removed")

    def add_many(self, records: Sequence[Record]) -> Plan[list[bool]]:
        """See ``Backend``."""
        documents = yield from self._documents(records)
        outcome = _Outcome(documents)
        there: set[str] = set()
        for some in _chunks(records, lambda record: len(record.payload)):
            left = [record.key for record in some]
            for _ in range(2):
                call = partial(self._collection.insert_many, [documents[key] for key in left], ordered=False)
                left = yield from self._write(call, left, outcome)
                expired = {"_id": {"$in": left}, EXPIRY: {"$lte": DatetimeMS(now_ms())}}
                if not left or not (yield from self._call(self._collection.delete_many, expired)).deleted_count:
                    break
            there.update(left)
        outcome.settle("added", there)
        return [record.key not in there for record in records]

    def update(self, key: str, change: Change) -> Plan[None]:
        """See ``Backend``: replaces the document if it is still as it was read, else it begins again."""
        collection = self._collection
        for _ in range(RACES_MAX):
            batches = yield from self._find({"_id": key})
            old = parsed(batches[0])[0] if batches and batches[0] else None
            stored = None if old is None else found_in(old)
            record = change(stored if stored is not None and is_alive(stored, now_ms()) else None)
            new = None if record is None else (yield from self._documents([record]))[key]
            if old is None:
                if new is None or (yield from self._insert(new)):
                    return
            elif new is None:
                if (yield from self._call(collection.delete_one, as_it_was(old), writes=True)).deleted_count:
                    return
            elif (yield from self._call(collection.replace_one, as_it_was(old), new, writes=True)).matched_count:
                return
        raise _overtaken(key)

    def _insert(self, document: Document) -> Plan[bool]:
        try:
            yield Step.of(self._collection.insert_one, self._collection.insert_one, document)
        except FOREIGN as error:
            if isinstance(error, mongo.DuplicateKeyError) and _is_there(error.details or {}):
                return False
            raise translated(error, self.name, writes=True) from None
        return True

    def touch_many(self, keys: Sequence[str], expires_at_ms: int) -> Plan[None]:
        """See ``Backend``."""
        moment = DatetimeMS(expires_at_ms)
        for some in _chunks(keys, lambda key: len(key.encode())):
            sooner = {"_id": {"$in": list(some)}, EXPIRY: {"$gt": DatetimeMS(now_ms()), "$lt": moment}}
            yield from self._call(self._collection.update_many, sooner, {"$set": {EXPIRY: moment}}, writes=True)

    def clear(self, prefix: str) -> Plan[None]:
        """See ``Backend``."""
        yield from self._call(self._collection.delete_many, _with(prefix), writes=True)

    def collections(self) -> Plan[list[str]]:
        """Return the names of the database's collections, without MongoDB's own, sorted."""
        names: list[str] = yield from self._call(self._collection.database.list_collection_names)
        return sorted(name for name in names if not name.startswith("system."))

    def drop(self) -> Plan[None]:
        """Remove the collection, with its index."""
        yield from self._call(self._collection.drop, writes=True)

    def version(self) -> Plan[str]:
        """Return the server's version."""
        return str((yield from self._call(self._collection.database.command, "buildInfo"))["version"])

    def purge(self) -> Plan[int]:
        """See ``Backend``."""
        expired = {"_id": {"$type": "string"}, EXPIRY: {"$lte": DatetimeMS(now_ms())}}
        count: int = (yield from self._call(self._collection.delete_many, expired, writes=True)).deleted_count
        return count

    def open(self, *, clear: bool) -> Plan[None]:
        """Ask the server whether it is there, and lets this user in. The first write makes the collection."""
        with pymongo.timeout(FIRST_CONTACT_S):
            yield from self._call(self._collection.database.command, "ping")
        if clear:
            yield from self._call(self._collection.delete_many, {}, writes=True)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _documents(self, records: Sequence[Record]) -> Plan[dict[str, Document]]:
        """Return the document of each record; before the first that expires, have the server remove such ones."""
        documents: dict[str, Document] = {}
        for some in by_bytes(records, lambda record: len(record.payload)):
            documents.update((record.key, document_of(record)) for record in some)
            yield PAUSE
        if not self._has_index and any(record.expires_at_ms is not None for record in records):
            self._has_index = True
            create = partial(self._collection.create_index, EXPIRY, expireAfterSeconds=0)
            try:
                yield Step(create, create)
            except FOREIGN as error:  # this user may not: what has expired is not served all the same
                _logger.warning("Collection '%s' has no TTL index: %s", self.name, type(error).__name__)
        return documents

    def _find(self, which: dict[str, Any]) -> Plan[list[bytes]]:
        find = partial(self._collection.find_raw_batches, which)
        batches: list[bytes] = yield from self._made(lambda: list(find()), partial(_gathered, find))
        return batches

    def _call(self, call: Callable[..., Any], *args: Any, writes: bool = False) -> Plan[Any]:
        made = partial(call, *args)
        return (yield from self._made(made, made, writes=writes))

    def _made(self, plain: Callable[[], Any], coroutine: Callable[[], Any], *, writes: bool = False) -> Plan[Any]:
        try:
            return (yield Step(plain, coroutine))
        except FOREIGN as error:
            raise translated(error, self.name, writes=writes) from None

    def _write(self, call: Callable[[], Any], keys: Sequence[str], outcome: _Outcome) -> Plan[list[str]]:
        """Send the writes of these keys, note what failed, and return the keys that exist."""
        if outcome.stop is not None:
            outcome.fail(keys, outcome.stop, applied=False)
            return []
        try:
            yield Step(call, call)
        except mongo.BulkWriteError as error:
            return outcome.read(error, keys, self.name)
        except FOREIGN as error:
            outcome.fail(keys, translated(error, self.name, writes=True))
        return []


async def _gathered(find: Callable[[], Any]) -> list[bytes]:
    return [batch async for batch in find()]


def _first(find: Callable[[], Any]) -> tuple[bytes, bool]:
    """Return the first batch, and whether the server has more: where one ends only the server knows."""
    with find() as cursor:
        return next(cursor, b""), cursor.alive


async def _afirst(find: Callable[[], Any]) -> tuple[bytes, bool]:
    async with find() as cursor:
        return await anext(cursor, b""), cursor.alive


class _Outcome:
    """What became of each key of a batch.

    Attributes:
        stop: why no more is sent.
    """

    def __init__(self, keys: Collection[str]) -> None:
        self.stop: StoreError | None = None
        self._keys = keys
        self._errors: dict[str, StoreError] = {}
        self._unwritten: set[str] = set()

    def fail(self, keys: Sequence[str], error: StoreError, *, applied: bool | None = None) -> None:
        """Note that the keys were not written, or that nobody knows."""
        self._errors.update(dict.fromkeys(keys, error))
        if applied is False or error.applied is False:
            self._unwritten.update(keys)
        if isinstance(error, TransportError | AuthError | StoreClosedError):
            self.stop = self.stop or error

    def read(self, error: mongo.BulkWriteError, keys: Sequence[str], name: str) -> list[str]:
        """Note what failed of a bulk of writes; return the keys that exist."""
        failed = {each["index"]: each for each in error.details.get("writeErrors", ())}
        exist = [keys[at] for at, each in failed.items() if _is_there(each)]
        for at, each in failed.items():
            if not _is_there(each):
                self.fail([keys[at]], _refused(each.get("code"), each.get("errmsg", ""), name, applied=False))
        for each in error.details.get("writeConcernErrors", ())[:1]:
            unsure = _refused(each.get("code"), each.get("errmsg", ""), name, applied=None)
            self.fail([key for at, key in enumerate(keys) if at not in failed], unsure)
        return exist

    def settle(self, done: str, there: Collection[str] = ()) -> None:
        """Raise the error that all keys failed with, or one that names each key's."""
        if not self._errors:
            return
        first = next(iter(self._errors.values()))
        unknown = tuple(key for key in self._errors if key not in self._unwritten)
        reasons = {(type(error), getattr(error, "code", "")) for error in self._errors.values()}
        if len(self._errors) == len(self._keys) and len(reasons) == 1 and not (unknown and self._unwritten):
            first.applied = None if unknown else False
            raise first from None
        raise PartialWriteError.of(
            done,
            written=tuple(key for key in self._keys if key not in self._errors and key not in there),
            unwritten=tuple(key for key in self._keys if key in self._unwritten or key in there),
            unknown=unknown,
            errors=self._errors,
            shown=shown,
            is_repeatable=done != "added",
        ) from None


# -- filters ----------------------------------------------------------------------------------------------------------


def _with(prefix: str, after: str | None = None) -> dict[str, Any]:
    """Return the filter of keys that are text and start with a prefix: one range of the index."""
    which: dict[str, Any] = {"$type": "string"}
    if prefix:
        which = {"$regex": "^" + re.escape(prefix).replace("\0", r"\x00")}
    # Two conditions: beside a regex mongo-java-server does not look at $gt.
    return {"_id": which} if after is None else {"$and": [{"_id": which}, {"_id": {"$gt": after}}]}


def _alive(which: dict[str, Any]) -> dict[str, Any]:
    return {**which, EXPIRY: {"$not": {"$lte": DatetimeMS(now_ms())}}}


def _chunks(items: Sequence[T], size_of: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """Yield the items in parts of a request each."""
    start = size_bytes = 0
    for at, item in enumerate(items):
        size = size_of(item)
        if at > start and (at - start >= CHUNK or size_bytes + size > CHUNK_BYTES):
            yield items[start:at]
            start, size_bytes = at, 0
        size_bytes += size
    if start < len(items):
        yield items[start:]


# -- errors -----------------------------------------------------------------------------------------------------------


def _is_there(details: Mapping[str, Any]) -> bool:
    """Tell whether a write failed because its key exists, and not for another unique index."""
    return details.get("code") == _EXISTS and "index: _id_" in details.get("errmsg", "")


def _overtaken(key: str) -> StoreError:
    error = StoreError(f"Others changed key {shown(key)} again and again meanwhile: nothing was done; try again.")
    error.retryable = True
    return error


FOREIGN: Final = (mongo.PyMongoError, BSONError)


def translated(error: Exception, name: str, *, writes: bool) -> StoreError:
    """Return what an error of pymongo's means.

    Args:
        error: the error.
        name: the collection's.
        writes: whether the call was to change something; else ``applied`` is False.
    """
    found = _meaning(error, name)
    if not writes:
        found.applied = False
    return found


def _meaning(error: Exception, name: str) -> StoreError:
    about = f"collection '{name}' of MongoDB"
    text = str(error).partition(", Timeout:")[0].partition(" dup key")[0][:200]
    if isinstance(error, mongo.InvalidOperation):
        return StoreClosedError(f"The client of {about} was closed: make a new one, and a new store.")
    if isinstance(error, mongo.ConfigurationError):
        return ConfigError(f"MongoDB cannot be used as the URL says ({text}): correct the URL.")
    if isinstance(error, mongo.ServerSelectionTimeoutError):
        return ConnectError(f"No server was there for {about} ({text}): check the host, the port and tls= of its URL.")
    if isinstance(error, mongo.DocumentTooLarge):
        return InvalidValueError(
            f"A request about {about} is larger than MongoDB takes, 16 MiB for what an update replaces (a list counts"
            " twice) and what it writes: split the value over several keys, or write it without update()."
        )
    if isinstance(error, mongo.ConnectionFailure | mongo.ExecutionTimeout) and error.timeout:
        return RequestTimeoutError(f"{about[0].upper()}{about[1:]} was not answered in time: try again.")
    if isinstance(error, mongo.ConnectionFailure):
        return TransportError(f"The connection to {about} was lost ({text}): try again.")
    if isinstance(error, mongo.OperationFailure):
        return _refused(error.code, str((error.details or {}).get("errmsg", text)), name, applied=None)
    return StoreError(f"pymongo failed on {about}: {type(error).__name__}.")


def _refused(code: int | None, text: str, name: str, *, applied: bool | None) -> StoreError:
    """Return what an error of the server's means. Its text may go on with a value, behind the words "dup key"."""
    about, text = f"collection '{name}'", text.partition(" dup key")[0][:200]
    if code in _NO_LOGIN:
        return AuthError.of(
            "UNAUTHENTICATED_REQUEST",
            f"MongoDB did not accept the login ({text}): check user, password and authSource= of its URL.",
        )
    if code == _NOT_ALLOWED:
        return AuthError.of(
            "UNAUTHORIZED_ACCESS", f"The user may not do this with {about} ({text}): grant it, or use another user."
        )
    if code in _TOO_LARGE:
        return InvalidValueError(
            f"A value is larger than the server takes for {about} ({text}): split it over several keys, or compress it."
        )
    error = DataAPIError.of("UNEXPECTED_SERVER_ERROR", f"MongoDB refused a request about {about}: {text} ({code}).")
    error.applied = applied
    return error


_NO_LOGIN: Final = (18, 8000)
_NOT_ALLOWED: Final = 13
_TOO_LARGE: Final = (10_334, 17_280, 17_419, 17_420)
