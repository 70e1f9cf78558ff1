"""Rows of an engine as the documents that others see, and back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
import orjson

from langchain_kv.engines.base import Change, DocId, Keep, Row
from langchain_kv.values.lenient import LenientDecoder

__all__ = ["ChangeDocument", "document_of", "has_expired", "moment_of", "of_documents", "postponed", "row_of"]

ChangeDocument = Callable[[DocId, bytes | None], bytes | Keep | None]
"""A ``Change`` as one of documents: of their JSON texts."""

_EXPIRY: Final = b'"expires_at"'
# The last field, or with those behind it that collections of a form have (backends/documents.py).
_LAST_FIELD: Final = re.compile(
    rb'"expires_at":\{"\$date":-?\d+\}((?:,"ns":\[(?:"(?:[^"\\]|\\.)*",?)*\])?(?:,"version":"[^"\\]*")?\}\Z)'
)


class _Expiry(msgspec.Struct):
    expires_at: Any = None


_expiries = LenientDecoder(_Expiry)


def document_of(row: Row) -> bytes:
    """Return the JSON text of a row's document; of a raw value, that of the one that langchain-astradb would store."""
    doc_id, body, is_raw, expires_at_ms = row
    if not is_raw:
        return body
    expiry = b"" if expires_at_ms is None else b',"expires_at":{"$date":%d}' % expires_at_ms
    # msgspec writes bytes as base64 text, in a third of the time that the standard library takes.
    return b'{"_id":%b,"value":%b%b}' % (orjson.dumps(doc_id), msgspec.json.encode(body), expiry)


def row_of(doc_id: DocId, document: bytes) -> Row:
    """Return the row that keeps a document."""
    return doc_id, document, False, _expiry_of(document) if _EXPIRY in document else None


def of_documents(change: ChangeDocument) -> Change:
    """Return a change of documents as one of rows. A raw value that it changes is a document from then on."""

    def change_row(doc_id: DocId, row: Row | None) -> Row | Keep | None:
        new = change(doc_id, None if row is None else document_of(row))
        return row_of(doc_id, new) if isinstance(new, bytes) else new

    return change_row


def has_expired(row: Row, now_ms: int) -> bool:
    """Return whether stores leave the row out by now."""
    moment = row[3]
    return moment is not None and moment <= now_ms


def postponed(row: Row, moment: int) -> Row:
    """Return the row as one that expires at ``moment``; one that others wrote in a way of their own stays as it is."""
    doc_id, body, is_raw, _ = row
    if not is_raw:
        body, found = _LAST_FIELD.subn(rb'"expires_at":{"$date":%d}\1' % moment, body)
        if not found:
            return row
    return doc_id, body, is_raw, moment


def moment_of(field: Any) -> int | None:
    """Return the moment that a parsed field ``expires_at`` says, None where it is not one that a store writes."""
    if not isinstance(field, dict) or len(field) != 1:
        return None
    moment = field.get("$date")
    return moment if type(moment) is int and -(2**63) <= moment < 2**63 else None


def _expiry_of(document: bytes) -> int | None:
    try:
        return moment_of(_expiries.decode(document).expires_at)
    except ValueError:
        return None
