"""A store of LangChain's Documents: a docstore for retrievers, on every target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from langchain_core.documents import Document

from langchain_kv.documents import classic
from langchain_kv.documents.metadata import are_json, restore, written
from langchain_kv.errors import InvalidValueTypeError
from langchain_kv.runtime.slices import Steps
from langchain_kv.stores.base import KVBaseStore
from langchain_kv.stores.coding import usually
from langchain_kv.values.codecs import UndecodableError, bytes_from_text
from langchain_kv.values.keys import type_name
from langchain_kv.values.plain import JSON_KINDS, PATH_START, are_plain
from langchain_kv.values.refusals import refuse_type

__all__ = ["DocumentStore", "Parent"]

_TEXTS: Final = (str, type(None))
_METADATA_PATH: Final = PATH_START + 1 + len("metadata")
_OWN_FIELDS: Final = frozenset(Document.model_fields)


class Parent(NamedTuple):
    """What ``ParentDocuments`` keeps of a parent.

    Attributes:
        document: the parent.
        children: the ids that its children have in the vector store; None where they are not known.
    """

    document: Document
    children: list[str] | None


def _encode_usual(values: Sequence[Document]) -> Steps[list[Any] | None]:
    """Return what ``encode_value`` makes of Documents whose metadata are plain JSON; None where one is not that."""
    if set(map(type, values)) != {Document}:
        return None
    texts = [value.page_content for value in values]
    ids = [value.id for value in values]
    metadata = [value.metadata for value in values]
    if set(map(type, texts)) != {str} or not set(map(type, ids)).issubset(_TEXTS) or set(map(type, metadata)) != {dict}:
        return None
    if not (yield from are_plain(metadata, 1, _METADATA_PATH, kinds=JSON_KINDS)):
        return None
    return [
        {"page_content": text, "metadata": own, "id": own_id}
        for text, own, own_id in zip(texts, metadata, ids, strict=True)
    ]


class DocumentStore(KVBaseStore[Document]):
    """Keeps Documents by key: a ``BaseStore[str, Document]``, as LangChain's retrievers take for ``docstore``.

    Each is plain JSON, ``{"page_content": ..., "metadata": {...}, "id": ...}``. Metadata may hold what JSON has, and
    datetime, date, UUID, Decimal, bytes, tuple and set, which come back as they were; a datetime with its offset from
    UTC, without its zone's name. It also reads what ``create_kv_docstore`` wrote to a byte store on this collection.

    Example:
        >>> from langchain_core.documents import Document
        >>> docs = DocumentStore("parents", "memory:")
        >>> docs.mset([("a.txt", Document("A long text.", metadata={"page": 1}))])
        >>> docs.mget(["a.txt", "x"])
        [Document(metadata={'page': 1}, page_content='A long text.'), None]
    """

    _component = "langchain_docstore"

    @usually(_encode_usual)
    def encode_value(self, value: Document | Parent | None) -> Any:
        """Return the document as JSON.

        Raises:
            InvalidValueTypeError: it is no Document, or one with more fields than a Document has, or with a field of
                another type.
        """
        children = None
        if type(value) is not Document:
            if type(value) is Parent:
                value, children = value
            value = _checked(value)
        text, metadata, own_id = value.page_content, value.metadata, value.id
        if type(text) is not str or type(own_id) not in _TEXTS or type(metadata) is not dict:
            _check_fields(value)
        kept: dict[str, Any] = {"page_content": text, "metadata": metadata, "id": own_id}
        if not are_json(metadata.values()):
            kept["metadata"], types = written(metadata)
            if types:
                kept["types"] = types
        if children is not None:
            kept["children"] = children
        return kept

    def decode_value(self, value: Any) -> Document | None:
        """Return the document of what ``encode_value`` made, or ``create_kv_docstore``: its bytes, or those as base64
        text.

        Raises:
            langchain_kv.values.codecs.UndecodableError: it is neither.
        """
        if value is None:
            return None
        if type(value) is not dict:
            value = _fields_of_bytes(value)
        text, metadata, own_id = value.get("page_content"), value.get("metadata", {}), value.get("id")
        if type(text) is not str or type(metadata) is not dict or type(own_id) not in _TEXTS:
            known = "page_content" in value
            why = "its page_content, metadata or id is of another type" if known else "it has no page_content"
            raise UndecodableError(f"it is JSON, but no document: {why}")
        if "types" in value:
            restore(value, value["types"])
        return Document(page_content=text, metadata=metadata, id=own_id)

    def parents(self, keys: Sequence[str]) -> list[Parent | None]:
        """Return the documents with the ids of their children, which ``ParentDocuments`` keeps: as ``mget``."""
        return self._get(keys, self._parent)

    async def aparents(self, keys: Sequence[str]) -> list[Parent | None]:
        """As ``parents``."""
        return await self._aget(keys, self._parent)

    def _parent(self, value: Any) -> Parent | None:
        document = self.decode_value(value)
        if document is None:
            return None
        children = value.get("children") if isinstance(value, dict) else None
        is_known = isinstance(children, list) and all(isinstance(child, str) for child in children)
        return Parent(document, children if is_known else None)


def _checked(value: Any) -> Document:
    """Return what is a Document, also one of a subclass that adds no field."""
    if not isinstance(value, Document):
        raise InvalidValueTypeError(
            f"A DocumentStore keeps Documents, got {type_name(value)}: keep JSON values in KVStore, bytes in"
            " KVByteStore."
        )
    more = type(value).model_fields.keys() - _OWN_FIELDS
    if more:
        raise InvalidValueTypeError(
            f"The value is a {type_name(value)} with fields that a Document does not have ({', '.join(sorted(more))}):"
            " put them into its metadata."
        )
    return value


def _check_fields(value: Document) -> None:
    """Refuse fields of other types than a Document's, as assigned later. What is a subclass passes."""
    fields: dict[str, tuple[type, ...]] = {"page_content": (str,), "metadata": (dict,), "id": _TEXTS}
    for name, kinds in fields.items():
        field = getattr(value, name)
        if not isinstance(field, kinds):
            refuse_type("", field, (name,))


def _fields_of_bytes(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = bytes_from_text(value)
        except UndecodableError:
            raise UndecodableError("it is text and no document: another kind of store wrote it?") from None
    if not isinstance(value, bytes):
        raise UndecodableError(f"it is no document but {type(value).__name__}: another kind of store wrote it?")
    return classic.fields_in(value)
