"""The Data API's commands, as bytes to send: no input or output here.

Request bodies are joined from parts that are JSON already: a document is never parsed or encoded again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import orjson

from langchain_kv import limits
from langchain_kv.backends.collections import NAMESPACES, PLAIN, VERSION, CollectionForm
from langchain_kv.backends.documents import EXPIRY, Encoded

__all__ = [
    "LARGE_BYTES",
    "Command",
    "VersionFilter",
    "create_collection",
    "delete_collection",
    "delete_many",
    "delete_version",
    "find_collections",
    "find_keys",
    "find_nearest",
    "find_one",
    "find_page",
    "give_version",
    "insert_many",
    "postpone",
    "replace_version",
    "split_by_size",
    "upsert",
]

LARGE_BYTES: Final = 256 * 1024
"""From this size on a request is sent in parts, and the documents of a reply are parsed a few at a time."""


class Command(NamedTuple):
    """A request.

    Attributes:
        name: the Data API's command.
        body: the JSON to send.
        parts: the same in parts, where it is large: then ``body`` is empty, and nothing joins what may be 20 MB.
        key_count: how many keys it names.
    """

    name: str
    body: bytes
    parts: Sequence[bytes] = ()
    key_count: int = 0


# Only an exclusion keeps values at home: {"_id": true} alone would ship the whole document (measured). Without its
# value a marker beside it would mean nothing.
_WITHOUT_VALUE: Final = b'{"value":false,"encoding":false,"body_blob":false}'


def find_keys(keys: Sequence[str], state: str | None = None, *, values: bool = True) -> Command:
    """Ask for the documents of at most IN_MAX keys."""
    options = b"" if values else b',"projection":%b' % _WITHOUT_VALUE
    if state is not None:
        options += b',"options":{"pageState":%b}' % orjson.dumps(state)
    return Command(
        "find", b'{"find":{"filter":{"_id":{"$in":%b}}%b}}' % (orjson.dumps(list(keys)), options), key_count=len(keys)
    )


def find_page(state: str | None, *, values: bool, namespace: str = "") -> Command:
    """Ask for a page of the whole collection, or of those documents that list a namespace."""
    parts = [] if values else [b'"projection":%b' % _WITHOUT_VALUE]
    if namespace:
        parts.append(b'"filter":{"%b":%b}' % (NAMESPACES.encode(), orjson.dumps(namespace)))
    if state is not None:
        parts.append(b'"options":{"pageState":%b}' % orjson.dumps(state))
    return Command("find", b'{"find":{%b}}' % b",".join(parts))


def find_nearest(vector: bytes, limit: int, namespace: str) -> Command:
    """Ask for the documents that are nearest to a vector, in a namespace or, of the empty text, in all.

    Args:
        vector: see ``own_vectors.spelled_for_service``.
        limit: at most so many.
        namespace: see ``find_page``.
    """
    found = b'"filter":{"%b":%b},' % (NAMESPACES.encode(), orjson.dumps(namespace)) if namespace else b""
    sort = b'"sort":{"$vector":{"$binary":"%b"}},"options":{"limit":%d}' % (vector, limit)
    return Command("find", b'{"find":{%b%b}}' % (found, sort))


def upsert(record: Encoded) -> Command:
    """Store one document, whether its key exists or not. The answer holds no value."""
    key, document = record
    return _command(
        "findOneAndReplace",
        b'{"findOneAndReplace":{"filter":{"_id":%b},"replacement":' % orjson.dumps(key),
        document,
        b',"projection":{"value":false},"options":{"upsert":true}}}',
    )


VersionFilter = dict[str, str]
"""Selects the document of a version, by that alone or by its key, too."""


def find_one(key: str, *, values: bool = True) -> Command:
    """Ask for one document with its version."""
    options = b"" if values else b',"projection":%b' % _WITHOUT_VALUE
    return Command("findOne", b'{"findOne":{"filter":{"_id":%b}%b}}' % (orjson.dumps(key), options), key_count=1)


def give_version(key: str, version: str) -> Command:
    """Give a version to a document, as others wrote it; nothing else is changed."""
    return Command(
        "updateOne",
        orjson.dumps({"updateOne": {"filter": {"_id": key}, "update": {"$set": {VERSION: version}}}}),
        key_count=1,
    )


def replace_version(version: VersionFilter, document: bytes) -> Command:
    """Replace the document of a version. The answer holds no value."""
    return _command(
        "findOneAndReplace",
        b'{"findOneAndReplace":{"filter":%b,"replacement":' % orjson.dumps(version),
        document,
        b',"projection":{"value":false}}}',
    )


def delete_version(version: VersionFilter) -> Command:
    """Delete the document of a version."""
    return Command("deleteOne", b'{"deleteOne":{"filter":%b}}' % orjson.dumps(version), key_count=1)


def postpone(version: VersionFilter, expires_at_ms: int, new_version: str) -> Command:
    """Give the document of a version another moment of expiry."""
    changed = {EXPIRY: {"$date": expires_at_ms}, VERSION: new_version}
    return Command(
        "updateOne",
        orjson.dumps({"updateOne": {"filter": version, "update": {"$set": changed}}}),
        key_count=1,
    )


def insert_many(records: Sequence[Encoded]) -> Command:
    """Insert at most INSERT_MANY_MAX documents, each on its own."""
    parts = [b'{"insertMany":{"documents":[']
    for _, document in records:
        parts += (document, b",")
    parts[-1] = b'],"options":{"ordered":false}}}'
    return _command("insertMany", *parts, key_count=len(records))


def _command(name: str, *parts: bytes, key_count: int = 1) -> Command:
    if sum(map(len, parts)) < LARGE_BYTES:
        return Command(name, b"".join(parts), key_count=key_count)
    return Command(name, b"", parts, key_count)


def delete_many(keys: Sequence[str]) -> Command:
    """Delete the documents of at least one and at most DELETE_MANY_MAX keys."""
    if not keys:  # without a filter the command empties the collection: never come near it
        raise ValueError("delete_many needs a key")
    body = b'{"deleteMany":{"filter":{"_id":{"$in":%b}}}}' % orjson.dumps(list(keys))
    return Command("deleteMany", body, key_count=len(keys))


def find_collections() -> Command:
    """Ask for the keyspace's collections and what each was created with."""
    return Command("findCollections", b'{"findCollections":{"options":{"explain":true}}}')


def create_collection(name: str, form: CollectionForm = PLAIN) -> Command:
    """Create a collection as the stores use it."""
    options = {"name": name, "options": form.settings}
    return Command("createCollection", b'{"createCollection":%b}' % orjson.dumps(options))


def delete_collection(name: str) -> Command:
    """Drop a collection; a missing one is no error."""
    return Command("deleteCollection", b'{"deleteCollection":%b}' % orjson.dumps({"name": name}))


def split_by_size(records: Sequence[Encoded]) -> Iterator[Sequence[Encoded]]:
    """Yield runs of records that fit in one insertMany: by number and by bytes; one alone always fits."""
    start = 0
    while start < len(records):
        run = list(records[start : start + limits.INSERT_MANY_MAX])
        size = sum([len(document) for _, document in run]) + len(run) - 1
        while size > limits.REQUEST_BODY_TARGET_BYTES and len(run) > 1:
            size -= len(run.pop()[1]) + 1
        yield run
        start += len(run)
