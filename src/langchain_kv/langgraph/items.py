"""LangGraph's items as records, and back.

An item is kept as the JSON object ``{"value": {...}, "updated_at": "...", "created_at": "..."}`` under the key that
encodes its namespace and key (``values/namespaces.py``). Both moments are ISO 8601 in UTC with microseconds. What
expires has ``ttl``, minutes, before ``created_at``, and what is found by its meaning ``vectors``, each the base64 text
of float32 numbers, little-endian. ``created_at`` comes last, and is of one length, so that the text of an item that
exists is given the moment at which that was created without being parsed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec
from langgraph.store.base import GetOp, Item, PutOp, SearchItem, validate_op_namespace
from msgspec.structs import replace

from langchain_kv.backends.base import Damaged, Found, Kind, Merge, Record, Stored
from langchain_kv.backends.documents import EXPIRY, Envelope, found_in
from langchain_kv.engines.base import Ending
from langchain_kv.errors import InvalidValueTypeError, StoreError, UsageError
from langchain_kv.runtime.clock import now_us
from langchain_kv.runtime.slices import Steps
from langchain_kv.stores.coding import encode_pairs, plain_values
from langchain_kv.stores.expiry import moment_after
from langchain_kv.values.keys import shown, type_name
from langchain_kv.values.namespaces import decode_key, namespace_prefix

__all__ = [
    "UPDATED",
    "checked_put",
    "created_earlier",
    "damage_of",
    "encode",
    "item_of",
    "key_of",
    "name_items",
    "namespace_in",
    "search_item_of",
    "ttl_s_of",
    "with_vectors",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT: Final = 32
"""Characters of a moment: 2026-11-27T16:00:00.000000+00:00."""


# -- keys -------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _prefix_of(namespace: tuple[str, ...]) -> str:
    validate_op_namespace(GetOp(namespace, ""))
    return namespace_prefix(namespace)


def key_of(op: GetOp | PutOp) -> str:
    """Return the record's key of an operation's item.

    Raises:
        langgraph.store.base.InvalidNamespaceError: a label is none.
        UsageError: the namespace is empty.
    """
    namespace, key = op.namespace, op.key
    try:
        prefix = _prefix_of(namespace)
    except TypeError:  # a list, say, which has no hash
        prefix = _prefix_of(tuple(namespace))
    if not prefix:
        raise UsageError("An item's namespace has at least one label, got (): give ('memories',).")
    return prefix + (key if type(key) is str else str(key))


@lru_cache(maxsize=4096)
def namespace_in(prefix: str) -> tuple[str, ...] | None:
    """Return the namespace of what ``values.namespaces.namespace_of`` answers; None where it is none of ours."""
    decoded = decode_key(prefix)
    return decoded[0] if decoded is not None and all(decoded[0]) else None


def name_items(error: StoreError, keys: Iterable[str]) -> None:
    """Have an error speak of namespaces and keys, not of these keys of records."""
    text = str(error)
    for key in keys:
        decoded = decode_key(key)
        if decoded is not None and shown(key) in text:
            text = text.replace(shown(key), f"{shown(decoded[1])} of {decoded[0]!r}")
    error.args = (text,)


# -- writing ----------------------------------------------------------------------------------------------------------


def checked_put(op: PutOp) -> PutOp:
    """Return the operation with a dict as its value, checked but for the JSON of that.

    Raises:
        InvalidValueTypeError: the value is no mapping.
        UsageError: ttl or index is none.
    """
    value = op.value
    if (type(value) is dict and op.ttl is None and op.index is None) or value is None:
        return op  # the usual case
    if type(value) is not dict:
        if not isinstance(value, Mapping):
            raise InvalidValueTypeError(
                f"An item's value must be a mapping, got {type_name(value)} for key {shown(op.key)}: give"
                " {'text': value}, say."
            )
        value = dict(value)
    index = op.index
    if index is not None and index is not False and not isinstance(index, list | tuple):
        raise UsageError(f"index must be None, False or a list of paths, got {index!r:.60}: give ['text'].")
    return op._replace(value=value, ttl=_checked_ttl(op.ttl))


def _checked_ttl(ttl: Any) -> float | None:
    if ttl is None:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not ttl > 0:
        raise UsageError(f"ttl must be a number of minutes over 0, or None, got {ttl!r:.40}.")
    return float(ttl) if math.isfinite(ttl) else None


def encode(puts: Mapping[str, PutOp]) -> Steps[list[Record]]:
    """Return the records of the items, which have a value and were checked, in slices.

    Raises:
        InvalidValueError: a value cannot be kept; the text names the record's key.
    """
    now = _written(now_us())
    lasting = {
        key: {"value": put.value, "updated_at": now, "created_at": now} for key, put in puts.items() if put.ttl is None
    }
    records = yield from encode_pairs(_same, lasting, None, plain_values)
    if len(lasting) == len(puts):
        return records
    by_ttl: dict[float, dict[str, Any]] = {}
    for key, put in puts.items():
        if put.ttl is not None:
            item = {"value": put.value, "updated_at": now, "ttl": put.ttl, "created_at": now}
            by_ttl.setdefault(put.ttl, {})[key] = item
    for ttl, items in by_ttl.items():
        records += yield from encode_pairs(_same, items, moment_after(ttl * 60), plain_values)
    return records


def _same(value: Any) -> Any:
    return value


def _written(moment_us: int) -> str:
    return (_EPOCH + timedelta(microseconds=moment_us)).isoformat(timespec="microseconds")


def with_vectors(record: Record, vectors: Sequence[str]) -> Record:
    """Return the record of an item with its vectors."""
    text = record.payload
    field = b',"vectors":["%b"]' % '","'.join(vectors).encode()
    return replace(record, payload=text[: -_CREATED.size] + field + text[-_CREATED.size :])


_DATE: Final = "[0-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]"
_PATTERN: Final = f"{_DATE}T[0-2][0-9]:[0-5][0-9]:[0-5][0-9][.]{'[0-9]' * 6}[+]00:00"
_CREATED: Final = Ending(f',"created_at":"{_PATTERN}"[}}]', _MOMENT, len('"}'))
"""Where the moment at which an item was created stands in its text."""

UPDATED: Final = Ending(
    f',"updated_at":"{_PATTERN}","created_at":"{_PATTERN}"[}}]', _MOMENT, len('","created_at":""}') + _MOMENT
)
"""Where the moment of the last update stands in the text of the usual item."""


def _created_of(record: Record, stored: Stored) -> Record:
    try:
        created = stored.value["created_at"]  # type: ignore[union-attr]
        if len(created) != _MOMENT or created[10] != "T":
            return record
        datetime.fromisoformat(created)
    except (AttributeError, TypeError, ValueError, LookupError):  # it is damaged, or no item
        return record
    return replace(record, payload=_CREATED.with_text(record.payload, created.encode()))


created_earlier: Final = Merge(_created_of, _CREATED)
"""Gives a record the moment at which the item that is there was created."""


# -- reading ----------------------------------------------------------------------------------------------------------


class _Item(msgspec.Struct, gc=False):
    value: dict[str, Any]
    updated_at: str
    created_at: str


class _Document(Envelope, gc=False, rename={"kind": "encoding", "expires_at_ms": EXPIRY}):
    value: _Item | None = None


_decode = msgspec.json.Decoder(_Document).decode


def _item_in(stored: Stored | bytes) -> _Item:
    """Return what is stored as an item, its moments as they stand there; raises as ``item_of`` where it is none."""
    if type(stored) is bytes:
        try:
            document = _decode(stored)  # sooner than all that a document may keep
            if document.kind is Kind.JSON and document.expires_at_ms is None and document.value is not None:
                return document.value
        except (ValueError, RecursionError):
            pass
        stored = found_in(stored)
    item = stored.value  # type: ignore[union-attr]
    if type(item["value"]) is not dict:
        raise TypeError
    return _Item(item["value"], item["updated_at"], item["created_at"])


def damage_of(stored: Stored | bytes) -> str | None:
    """Return why what is stored is no item; None where it is one."""
    if isinstance(stored, bytes):
        stored = found_in(stored)
    if isinstance(stored, Damaged):
        return stored.reason
    try:
        item = _item_in(stored)
        datetime.fromisoformat(item.updated_at)
        datetime.fromisoformat(item.created_at)
    except (AttributeError, TypeError, ValueError, LookupError):
        return "it is no item of a LangGraphStore: it is encrypted, or another store wrote it"
    return None


def item_of(op: GetOp, stored: Stored | bytes) -> Item:
    """Return the item that was asked for.

    Raises:
        AttributeError, TypeError, ValueError, LookupError: what is stored is none.
    """
    item = _item_in(stored)
    return Item(
        value=item.value,
        key=op.key if type(op.key) is str else str(op.key),
        namespace=op.namespace,
        created_at=datetime.fromisoformat(item.created_at),
        updated_at=datetime.fromisoformat(item.updated_at),
    )


def search_item_of(record_key: str, stored: Stored | bytes, score: float | None) -> SearchItem:
    """Return the item of a record with its score; raises as ``item_of``."""
    item = _item_in(stored)
    at = record_key.index("\x1e") + 1
    namespace = namespace_in(record_key[:at]) or ()
    created_at = datetime.fromisoformat(item.created_at)
    updated_at = created_at if item.updated_at == item.created_at else datetime.fromisoformat(item.updated_at)
    return SearchItem(namespace, record_key[at:], item.value, created_at, updated_at, score)


def ttl_s_of(stored: Stored | bytes) -> float | None:
    """Return how many seconds an item lives from each reading on; None where it does not expire."""
    if not isinstance(stored, Found) or stored.expires_at_ms is None:
        return None
    ttl = stored.value.get("ttl")
    return ttl * 60.0 if isinstance(ttl, int | float) and not isinstance(ttl, bool) and ttl > 0 else None
