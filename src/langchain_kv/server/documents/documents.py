"""What a valid document is, and the one form in which it is stored."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from langchain_kv import limits
from langchain_kv.engines.base import DocId, Settings
from langchain_kv.engines.indexing import Indexing
from langchain_kv.engines.vectors import VECTOR, hand_over, vectors_of
from langchain_kv.errors import DataAPIError
from langchain_kv.server.documents.ids import is_extended, is_object_id, is_uuid, new_id, parse_id
from langchain_kv.server.documents.inserted import Numbers
from langchain_kv.server.documents.vectors import no_embedding_service, no_vectors, parse_vector
from langchain_kv.values.json_text import utf16_length, write
from langchain_kv.values.plain import utf16_units

__all__ = ["Shredded", "check_special_fields", "new_id_of", "shred"]

_SPECIAL: Final = (VECTOR, "$vectorize")
_SIMPLE_NAME_MAX: Final = limits.PATH_MAX_UTF16 // 2


class Shredded(NamedTuple):
    """A document that can be stored.

    Attributes:
        id: its identity.
        id_json: its ``_id`` as it was sent or made.
        body: the text that is stored.
        document: the parsed document, ``_id`` first.
    """

    id: DocId
    id_json: Any
    body: bytes
    document: dict[str, Any]


def check_special_fields(document: Any, settings: Settings) -> None:
    """Refuse documents with fields for searches that the collection does not have, before any of a batch is written.

    Raises:
        DataAPIError: VECTOR_SEARCH_NOT_SUPPORTED, EMBEDDING_SERVICE_NOT_CONFIGURED, LEXICAL_NOT_ENABLED_FOR_COLLECTION.
    """
    if not isinstance(document, dict):
        return
    if document.get("$vectorize") is not None:
        raise no_embedding_service("$vectorize")
    for name in (VECTOR, "$vectorize", "$hybrid"):
        if name in document and "vector" not in settings:
            raise no_vectors(name)
    for name in ("$lexical", "$hybrid"):
        if name in document:
            raise DataAPIError.of(
                "LEXICAL_NOT_ENABLED_FOR_COLLECTION",
                f"Lexical search is not enabled for the collection: leave out the field '{name}'.",
            )


def new_id_of(settings: Settings) -> Any:
    """Return a new ``_id``, of the type that a collection was created with."""
    return new_id((settings.get("defaultId") or {}).get("type"))


def shred(document: Any, settings: Settings, indexing: Indexing) -> Shredded:
    """Check a parsed document and make the text that is stored, with an ``_id`` if it has none.

    Raises:
        DataAPIError: one of the SHRED codes, or of those of vectors; its ``document_ids`` holds the ``_id`` where that
            could be read.
    """
    if not isinstance(document, dict):
        raise DataAPIError.of("SHRED_BAD_DOCUMENT_TYPE", "A document is a JSON object: send one, with fields.")
    id_json = document["_id"] if "_id" in document else new_id_of(settings)
    document_id = parse_id(id_json)
    ordered = {"_id": id_json, **document}
    vector: bytes | None = None
    try:
        if VECTOR in document or "$vectorize" in document:
            check_special_fields(document, settings)
            numbers = document.get(VECTOR)
            if numbers is not None and (vectors := vectors_of(settings)):
                vector = parse_vector(numbers, vectors)
            if isinstance(numbers, Numbers):
                ordered[VECTOR] = msgspec.Raw(numbers.text)
        for name, value in ordered.items():
            # Most fields are seen at a glance to be right: of no more characters than fit whatever they are.
            is_simple = not isinstance(value, dict | list) and 0 < len(name) <= _SIMPLE_NAME_MAX and name[0] != "$"
            if not is_simple and name != "_id" and name not in _SPECIAL:
                _check_field(name, value, 1, utf16_units(name))
        body = write(ordered)
        if len(body) > limits.DOCUMENT_MAX_UTF16:  # bytes are never fewer than UTF-16 units
            _check_limit(utf16_length(body), limits.DOCUMENT_MAX_UTF16, "The document", "characters (UTF-16)")
        if not indexing.is_only_id:
            plain = ordered if VECTOR not in ordered else {**ordered, VECTOR: None}  # which has limits of its own
            _check_indexed(indexing.pruned(plain))
        elif isinstance(id_json, str):
            _count_properties(id_json, "_id")
    except DataAPIError as error:
        error.document_ids = (id_json,)
        raise
    if vector is not None:
        hand_over(body, vector)
    return Shredded(document_id, id_json, body, ordered)


def _check_field(name: str, value: Any, depth: int, path_length: int) -> None:
    """Check one field of an object at ``depth`` (1: the document); ``path_length`` is in UTF-16 units."""
    if not name or name[0] == "$":
        raise DataAPIError.of(
            "SHRED_BAD_FIELD_NAME",
            f"The field name {name[:100]!r} {'starts with $' if name else 'is empty'}: rename the field.",
        )
    _check_limit(path_length, limits.PATH_MAX_UTF16, f"The path that ends with {name[:100]!r}", "characters")
    _check_value(value, depth, path_length)


def _check_value(value: Any, depth: int, path_length: int) -> None:
    if not isinstance(value, dict | list):
        return
    _check_limit(depth + 1, limits.DOCUMENT_MAX_DEPTH, "The document", "levels of nesting")
    if isinstance(value, list):
        for element in value:
            if isinstance(element, dict | list):  # asked here too: arrays of numbers are long
                _check_value(element, depth + 1, path_length)
    elif is_extended(value):
        ((kind, inner),) = value.items()
        if not isinstance(inner, str | int) or isinstance(inner, bool):
            raise _bad_extended(kind)
    else:
        for name, field in value.items():
            _check_field(name, field, depth + 1, path_length + 1 + utf16_units(name))


def _check_indexed(document: dict[str, Any]) -> None:
    """Check the limits of what is indexed, and that its extended values are what they say."""
    properties = _count_properties(document)
    _check_limit(properties, limits.INDEXED_DOCUMENT_MAX_PROPERTIES, "The document", "indexed properties")
    for name, value in document.items():
        if name != "_id":
            _check_extended(value)


def _count_properties(value: Any, name: str = "") -> int:
    if isinstance(value, str):
        if len(value) * 4 > limits.INDEXED_STRING_MAX_BYTES:
            size = len(value.encode())
            _check_limit(size, limits.INDEXED_STRING_MAX_BYTES, f"The indexed field {name[:100]!r}", "bytes of UTF-8")
        return 0
    if isinstance(value, list):
        _check_limit(len(value), limits.INDEXED_ARRAY_MAX_LENGTH, f"The indexed array {name[:100]!r}", "elements")
        return sum(_count_properties(element, name) for element in value)
    if isinstance(value, dict):
        _check_limit(
            len(value), limits.INDEXED_OBJECT_MAX_PROPERTIES, f"The indexed object {name[:100]!r}", "properties"
        )
        return len(value) + sum(_count_properties(field, key) for key, field in value.items())
    return 0


def _check_extended(value: Any) -> None:
    if isinstance(value, list):
        for element in value:
            _check_extended(element)
    elif is_extended(value):
        ((kind, inner),) = value.items()
        is_right = {"$date": _is_date, "$uuid": is_uuid, "$objectId": is_object_id, "$binary": _is_base64}[kind]
        if not is_right(inner):
            raise _bad_extended(kind)
    elif isinstance(value, dict):
        for field in value.values():
            _check_extended(field)


def _is_date(value: Any) -> bool:
    return isinstance(value, int) and -(2**63) <= value < 2**63


def _is_base64(value: Any) -> bool:
    try:
        msgspec.convert(value, bytes)  # base64 takes too much padding with a Python before 3.13
    except (msgspec.ValidationError, UnicodeEncodeError):
        return False
    return True


def _check_limit(size: int, limit: int, what: str, unit: str) -> None:
    if size > limit:
        raise DataAPIError.of(
            "SHRED_DOC_LIMIT_VIOLATION", f"{what} has {size} {unit}; at most {limit} are allowed. Store less in it."
        )


def _bad_extended(kind: str) -> DataAPIError:
    forms = {
        "$date": "an integer, milliseconds since 1970",
        "$uuid": "the text of a UUID",
        "$objectId": "24 hexadecimal digits",
        "$binary": "base64 text",
    }
    return DataAPIError.of("SHRED_BAD_EJSON_VALUE", f"A value of type '{kind}' needs {forms[kind]}.")
