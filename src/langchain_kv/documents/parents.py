"""Parents in a DocumentStore and their children in a vector store, added, changed and removed together.

LangChain's retrievers add both and remove neither: nothing says which children a parent has. Here their ids stand in
the parent's own record. It names the new children before they are added, and the old ones until they are removed:
whatever fails half-way, no child is left of which nobody knows, and the same call again puts it right.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from langchain_kv.documents.store import DocumentStore, Parent
from langchain_kv.errors import ConfigError, InvalidValueTypeError, UnsupportedError, UsageError
from langchain_kv.runtime.plans import Plan, Step, arun, run
from langchain_kv.stores.arguments import checked_keys
from langchain_kv.stores.expiry import moment_after
from langchain_kv.values.keys import shown, type_name

__all__ = ["ParentDocuments"]

Family = tuple[str, Document, Sequence[Document] | None]
"""A parent's key, the parent, and its children; None: those that it has stay."""


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
            docstore: where the parents are, for ever: one without ``ttl_s``.
            vectorstore: where the children are.
            id_key: the field of a child's metadata that has its parent's key, as the retriever's ``id_key``.

        Raises:
            UsageError: the docstore is none that notes children.
            ConfigError: its parents expire: nothing would say any more which children they had.
        """
        if not isinstance(docstore, DocumentStore):
            raise UsageError(f"docstore must be a DocumentStore, got {type_name(docstore)}: give DocumentStore(...).")
        if moment_after(docstore._options.ttl_s) is not None:
            raise ConfigError(
                "docstore has ttl_s: where a parent expires, nothing says any more which children it had, and they stay"
                " in the vector store for ever. Make the DocumentStore without ttl_s, and delete parents here in time."
            )
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
        run(self._put(families))

    async def aput(self, families: Iterable[Family]) -> None:
        """As ``put``."""
        await arun(self._put(families))

    def delete(self, keys: Sequence[str]) -> None:
        """Remove parents and their children; missing ones are no error.

        Raises:
            UsageError: as of ``put``.
            UnsupportedError: as of ``put``.
        """
        run(self._delete(keys))

    async def adelete(self, keys: Sequence[str]) -> None:
        """As ``delete``."""
        await arun(self._delete(keys))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _put(self, families: Iterable[Family]) -> Plan[None]:
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

    def _delete(self, keys: Sequence[str]) -> Plan[None]:
        keys = checked_keys(keys)
        old = yield from self._children(keys)
        yield from self._remove([child for children in old.values() for child in children])
        yield Step.of(self._docstore.mdelete, self._docstore.amdelete, keys)

    def _children(self, keys: list[str]) -> Plan[dict[str, list[str]]]:
        """Return the children that each of the parents has; a missing one has none."""
        stored = yield Step.of(self._docstore.parents, self._docstore.aparents, keys)
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

    def _parents(self, parents: dict[str, Parent]) -> Step:
        return Step.of(self._docstore.mset, self._docstore.amset, list(parents.items()))

    def _add(self, children: list[Document], ids: dict[str, list[str]]) -> Plan[dict[str, list[str]]]:
        """Add children; return the ids of all, which some vector stores choose themselves."""
        given = [child.id for child in children]
        if not children:
            return ids
        vectors = self._vectorstore
        chosen = yield Step(
            partial(vectors.add_documents, children, ids=given), partial(vectors.aadd_documents, children, ids=given)
        )
        if not isinstance(chosen, list) or len(chosen) != len(given):
            return ids
        names = dict(zip(given, chosen, strict=True))
        return {key: [names.get(child, child) for child in own] for key, own in ids.items()}

    def _remove(self, children: list[str]) -> Plan[None]:
        if not children:
            return
        try:
            done = yield self._deletion(children)
        except Exception:
            # As FAISS does where one of them is missing, which those are that a call of before named and did not add.
            there = yield from self._those_there(children)
            if there is None or len(there) == len(children):
                raise
            done = (yield self._deletion(there)) if there else None
        if done is False:  # None says nothing
            raise UnsupportedError(
                f"The vector store says that it did not delete {len(children):,} children. Their parents still name"
                " them: repeat the call once it can."
            )

    def _deletion(self, children: list[str]) -> Step:
        vectors = self._vectorstore
        return Step(partial(vectors.delete, ids=children), partial(vectors.adelete, ids=children))

    def _those_there(self, children: list[str]) -> Plan[list[str] | None]:
        """Return which of the children are in the vector store; None where it does not say that."""
        try:
            found = yield Step.of(self._vectorstore.get_by_ids, self._vectorstore.aget_by_ids, children)
            there = {child.id for child in found}
        except Exception:
            return None
        return [child for child in children if child in there] if there.issubset(children) else None
