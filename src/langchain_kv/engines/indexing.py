"""What a collection indexes: the paths of its documents that its setting ``indexing`` allows, or does not deny."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from langchain_kv.engines.base import Settings
from langchain_kv.values.paths import Tree, covers, excluded, included, indexing_tree

__all__ = ["Indexing"]


class Indexing:
    """Which paths of a collection's documents are indexed: these can be filtered and sorted by, and have limits."""

    def __init__(self, settings: Settings) -> None:
        definition = settings.get("indexing") or {}
        allow, deny = definition.get("allow") or [], definition.get("deny") or []
        self.is_everything = allow == ["*"] or not (allow or deny)
        self.is_nothing = deny == ["*"]
        self._allows = bool(allow)
        self._tree: Tree = {} if self.is_everything or self.is_nothing else indexing_tree(allow or deny)
        self.is_only_id = allow == ["_id"]

    @classmethod
    def of(cls, settings: Settings) -> Indexing:
        """Return that of a collection with these settings; the same object for the same ones."""
        definition = settings.get("indexing") or {}
        return _indexing(tuple(definition.get("allow") or ()), tuple(definition.get("deny") or ()))

    def has(self, names: Sequence[str]) -> bool:
        """Whether the path of these field names is indexed."""
        if self.is_everything or self.is_nothing:
            return self.is_everything
        return covers(self._tree, names) is self._allows

    def has_some_of(self, name: str) -> bool:
        """Whether a field of a document, or something inside it, may be indexed."""
        if self.is_everything or self.is_nothing:
            return self.is_everything
        return name in self._tree if self._allows else not covers(self._tree, [name])

    def pruned(self, document: dict[str, Any]) -> Any:
        """Return the indexed part of a document."""
        if self.is_everything:
            return document
        if self.is_nothing or self._allows:
            return included(document, self._tree)
        return excluded(document, self._tree)


@lru_cache(maxsize=256)
def _indexing(allow: tuple[str, ...], deny: tuple[str, ...]) -> Indexing:
    # By what it says, not by the collection: whoever changes a collection, in whichever process, none of it is stale.
    return Indexing({"indexing": {"allow": [*allow], "deny": [*deny]}})
