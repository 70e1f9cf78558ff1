"""Parents in a DocumentStore and their children in a vector store, added, changed and removed together.

LangChain's retrievers add both and remove neither: nothing says which children a parent has. Here their ids stand in
the parent's own record. It names the new children before they are added, and the old ones until they are removed:
whatever fails half-way, no child is left of which nobody knows, and the same call again puts it right.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterable, Sequence
from typing import Any, Final, NamedTuple

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from langchain_kv.documents.store import DocumentStore, Parent
from langchain_kv.errors import InvalidValueTypeError, UnsupportedError, UsageError
from langchain_kv.stores.arguments import checked_keys
from langchain_kv.values.keys import shown, type_name

__all__ = ["ParentDocuments"]

Family = tuple[str, Document, Sequence[Document] | None]
"""A parent's key, the parent, and its children; None: those that it has stay."""


class _Call(NamedTuple):
    """A method to call: of this name, or its twin with a leading ``a``."""

    of: Any
    name: str
    arguments: tuple[Any, ...] = ()
    named: dict[str, Any] = {}  # noqa: RUF012  # nothing changes it


_Calls = Generator[_Call, Any, None]


class ParentDocuments:
    """Adds, changes and removes parent documents together with their children.

    The retrievers that read them, ParentDocumentRetriever and MultiVectorRetriever, take the same docstore and vector
    store. The vector store must add and delete by id, as most do. One writer at a time may change a parent.

    Example:
        >>> from langchain_core.documents import Document
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> from langchain_kv import DocumentStore
        >>> vectors = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
        >>> parents = ParentDocuments(DocumentStore("parents", "memory:"), vectors)
        >>> parents.put([("a.txt", Document("One. Two."), [Document("One."), Document("Two.")])])
        >>> len(vectors.store)
        2
        >>> parents.delete(["a.txt"])
        >>> len(vectors.store)
        0
    """

    def __init__(self, docstore: DocumentStore, vectorstore: VectorStore, *, id_key: str = "doc_id") -> None:
        """Use two stores, which stay the caller's to close.

        Args:
            docstore: where the parents are.
            vectorstore: where the children are.
            id_key: the field of a child's metadata that has its parent's key, as the retriever's ``id_key``.

        Raises:
            UsageError: the docstore is none that notes children.
        """
        if not isinstance(docstore, DocumentStore):
            raise UsageError(f"docstore must be a DocumentStore, got {type_name(docstore)}: give DocumentStore(...).")
        self._docstore: Final = docstore
        self._vectorstore: Final = vectorstore
        self._id_key: Final = id_key

    def put(self, families: Iterable[Family]) -> None:
        """Store parents with their children, new ones and changed ones alike: children of before are removed.

        Meanwhile a retriever finds either parent, never none.

        Args:
            families: for each parent ``(key, parent, children)``; of a repeated key the last one. ``children`` None
                leaves those that the parent has as they are, where only the parent changes. Children keep ids of
                their own, and get new ones where they have none; their metadata get the parent's key.

        Raises:
            InvalidValueError: a parent cannot be kept, or a child is no Document; nothing was stored.
            UsageError: a parent is there, and which children it has is not known, because something else stored it.
            UnsupportedError: the vector store says that it does not delete.
        """
        _call(self._put(families))

    async def aput(self, families: Iterable[Family]) -> None:
        """As ``put``."""
        await _acall(self._put(families))

    def delete(self, keys: Sequence[str]) -> None:
        """Remove parents and their children; missing ones are no error.

        Raises:
            UsageError: as of ``put``.
            UnsupportedError: as of ``put``.
        """
        _call(self._delete(keys))

    async def adelete(self, keys: Sequence[str]) -> None:
        """As ``delete``."""
        await _acall(self._delete(keys))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _put(self, families: Iterable[Family]) -> _Calls:
        by_key = {key: (parent, children) for key, parent, children in families}
        old = yield from self._children(list(by_key))
        new: dict[str, list[str]] = {}
        added: list[Document] = []
        for key, (_, children) in by_key.items():
            if children is None:
                new[key] = old[key]
            else:
                made = [self._child(key, child) for child in children]
                new[key] = [str(child.id) for child in made]
                added += made
        wanted = {child for ids in new.values() for child in ids}
        gone = {key: [child for child in old[key] if child not in wanted] for key in by_key}
        yield self._parents({key: Parent(by_key[key][0], [*new[key], *gone[key]]) for key in by_key})
        final = yield from self._add(added, new)
        yield from self._remove([child for children in gone.values() for child in children])
        changed = {key: Parent(by_key[key][0], final[key]) for key in by_key if gone[key] or final[key] != new[key]}
        if changed:
            yield self._parents(changed)

    def _delete(self, keys: Sequence[str]) -> _Calls:
        keys = checked_keys(keys)
        old = yield from self._children(keys)
        yield from self._remove([child for children in old.values() for child in children])
        yield _Call(self._docstore, "mdelete", (keys,))

    def _children(self, keys: list[str]) -> Generator[_Call, Any, dict[str, list[str]]]:
        """Return the children that each of the parents has; a missing one has none."""
        stored = yield _Call(self._docstore, "parents", (keys,))
        found = {key: [] if parent is None else parent.children for key, parent in zip(keys, stored, strict=True)}
        unknown = [shown(key) for key, children in found.items() if children is None]
        if unknown:
            more = f" and {len(unknown) - 3:,} more" if len(unknown) > 3 else ""
            raise UsageError(
                f"Which children {', '.join(unknown[:3])}{more} have is not known: something else stored them."
                f" Remove their children from the vector store by {self._id_key!r} in their metadata, and them by the"
                " docstore's mdelete; then add them here."
            )
        return found

    def _child(self, key: str, child: Document) -> Document:
        if not isinstance(child, Document):
            raise InvalidValueTypeError(f"A child of {shown(key)} is no Document but {type_name(child)}.")
        metadata = {**child.metadata, self._id_key: key}
        return child.model_copy(update={"id": child.id or str(uuid.uuid4()), "metadata": metadata})

    def _parents(self, parents: dict[str, Parent]) -> _Call:
        return _Call(self._docstore, "mset", (list(parents.items()),))

    def _add(self, children: list[Document], ids: dict[str, list[str]]) -> Generator[_Call, Any, dict[str, list[str]]]:
        """Add children; return the ids of all, which some vector stores choose themselves."""
        given = [child.id for child in children]
        if not children:
            return ids
        chosen = yield _Call(self._vectorstore, "add_documents", (children,), {"ids": given})
        if not isinstance(chosen, list) or len(chosen) != len(given):
            return ids
        names = dict(zip(given, chosen, strict=True))
        return {key: [names.get(child, child) for child in own] for key, own in ids.items()}

    def _remove(self, children: list[str]) -> _Calls:
        if not children:
            return
        done = yield _Call(self._vectorstore, "delete", (), {"ids": children})
        if done is False:  # None says nothing
            raise UnsupportedError(
                f"The vector store says that it did not delete {len(children):,} children. Their parents still name"
                " them: repeat the call once it can."
            )


def _call(calls: _Calls) -> None:
    """Make the calls, plain."""
    call = next(calls, None)
    while call is not None:
        call = _next(calls, getattr(call.of, call.name)(*call.arguments, **call.named))


async def _acall(calls: _Calls) -> None:
    """Make the calls' async twins."""
    call = next(calls, None)
    while call is not None:
        call = _next(calls, await getattr(call.of, f"a{call.name}")(*call.arguments, **call.named))


def _next(calls: _Calls, result: Any) -> _Call | None:
    try:
        return calls.send(result)
    except StopIteration:
        return None
