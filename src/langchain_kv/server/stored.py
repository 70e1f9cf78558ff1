"""Stored documents read in part: fields as they stand in the text, and parsed only where somebody asks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from langchain_kv.errors import DataAPIError
from langchain_kv.json_text import read

__all__ = ["field_texts", "parsed_fields", "stored_id"]

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def field_texts(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the texts of a stored document's fields, unparsed.

    Raises:
        DataAPIError: DOCUMENT_FROM_DB_UNPARSEABLE where it is no JSON object.
    """
    try:
        return _FIELDS.decode(body)
    except msgspec.DecodeError:  # an escaped lone surrogate, which other programs may have stored, or damage
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise DataAPIError.of(
                "DOCUMENT_FROM_DB_UNPARSEABLE",
                "A stored document is not a JSON object: the data were damaged, or another program wrote it.",
            ) from None
        return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in document.items()}


def parsed_fields(body: bytes, names: Iterable[str]) -> dict[str, Any]:
    """Return the fields of these names that a stored document has, parsed; the others are not."""
    texts = field_texts(body)
    return {name: read(bytes(texts[name])) for name in names if name in texts}


def stored_id(body: bytes) -> Any:
    """Return the ``_id`` of a stored document, as it was sent."""
    return read(bytes(field_texts(body)["_id"]))
