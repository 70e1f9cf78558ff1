"""Stored documents read in part: fields as they stand in the text, and parsed only where somebody asks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from langchain_kv.engines.base import DocId
from langchain_kv.errors import DataAPIError
from langchain_kv.values.json_text import read
from langchain_kv.values.lenient import LenientDecoder

__all__ = ["field_texts", "checked", "is_unparseable", "parsed_fields", "stored_id", "unparseable"]

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_documents: Final = LenientDecoder(dict[str, Any])


def field_texts(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the texts of a stored document's fields, unparsed.

    Raises:
        DataAPIError: DOCUMENT_FROM_DB_UNPARSEABLE where it is no JSON object.
    """
    try:
        body.decode()  # texts are passed on as they are: what is no UTF-8 would spoil the whole reply
        return _FIELDS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # An escaped lone surrogate, which other programs may have stored, or damage.
        try:
            document = _documents.decode(body)
            return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in document.items()}
        except (ValueError, RecursionError):
            raise unparseable(None) from None


def checked(body: bytes) -> bytes:
    """Return a stored document as it is; what is no UTF-8, half of a surrogate pair that was not escaped, escaped.

    Raises:
        DataAPIError: DOCUMENT_FROM_DB_UNPARSEABLE where it is no JSON object.
    """
    try:
        body.decode()
        _FIELDS.decode(body)
    except UnicodeDecodeError:
        return msgspec.json.encode(field_texts(body))
    except (msgspec.DecodeError, RecursionError):
        field_texts(body)
    return body


def unparseable(document_id: DocId | None) -> DataAPIError:
    """Make the error of a stored document that is no JSON object; it names the document where its id is known."""
    name = "A stored document" if document_id is None else f"The stored document {document_id[:200]!r}"
    return DataAPIError.of(
        _UNPARSEABLE,
        f"{name} is not a JSON object: the data were damaged, or another program wrote it. Delete it and store it"
        " anew, or have a backup put back where the server runs (lckv restore).",
        document_ids=(document_id,) if isinstance(document_id, str) else (),
    )


def is_unparseable(error: DataAPIError) -> bool:
    """Whether an error is that of a stored document that is no JSON object."""
    return error.code == _UNPARSEABLE


_UNPARSEABLE: Final = "DOCUMENT_FROM_DB_UNPARSEABLE"


def parsed_fields(body: bytes, names: Iterable[str]) -> dict[str, Any]:
    """Return the fields of these names that a stored document has, parsed; the others are not."""
    texts = field_texts(body)
    return {name: read(bytes(texts[name])) for name in names if name in texts}


def stored_id(body: bytes) -> Any:
    """Return the ``_id`` of a stored document, as it was sent."""
    return read(bytes(field_texts(body)["_id"]))
