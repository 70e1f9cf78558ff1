"""What is written: a record, and what its payload is."""

from __future__ import annotations

from enum import Enum

import msgspec

__all__ = ["Kind", "Record"]


class Kind(Enum):
    """What a payload is.

    Attributes:
        JSON: the compact JSON text of a value, as UTF-8.
        TEXT: the same, of a value that a document of the Data API cannot hold as it is (a name that begins with ``$``,
            a number of more than 100 digits, more than 15 levels): backends that keep documents keep it as text.
        BYTES: bytes, as they are.
        BODY_BLOB: as JSON, and backends that keep documents keep it in the field ``body_blob``, where caches of
            LangChain's have it.
        MARKED_BYTES: as BYTES; where bytes are base64 text, a note beside it says so, by which it is read as BYTES
            again, whoever reads it. Only for backends whose ``keeps_bytes`` is False.
    """

    JSON = "json"
    TEXT = "text"
    BYTES = "bytes"
    BODY_BLOB = "body_blob"
    MARKED_BYTES = "marked_bytes"


class Record(msgspec.Struct, frozen=True, gc=False):
    """What is written.

    Attributes:
        key: the key.
        payload: the value, in the form that ``kind`` says.
        kind: what the payload is.
        expires_at_ms: from this moment on the record is no longer there, in milliseconds of Unix time; None: for ever.
    """

    key: str
    payload: bytes
    kind: Kind = Kind.JSON
    expires_at_ms: int | None = None
