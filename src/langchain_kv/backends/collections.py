"""What a store's collection is created with, and whether an existing one fits: for the backends that keep documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from langchain_kv.errors import DataAPIError
from langchain_kv.runtime.callers import warn_caller

__all__ = ["INDEXING", "NAMESPACES", "PLAIN", "VERSION", "CollectionForm", "check_settings"]

INDEXING: dict[str, Any] = {"allow": ["_id"]}
"""The indexing that the stores' collections are created with: the one langchain-astradb uses."""

NAMESPACES: Final = "ns"
"""The field of a document that has the namespaces in which its key is."""

VERSION: Final = "version"
"""The field of a document that changes with each write."""


class CollectionForm(NamedTuple):
    """What the documents of a collection have beside key and value, where it is a Data API's or a cluster's.

    Attributes:
        namespaced: an indexed list of the namespaces in which the key is, by which one of them is listed.
        atomic: an indexed version, by which a document is changed only as it was read.
        dimension: how many numbers the document's own vector has, which the service compares by their cosine; 0: it has
            none. Only collections that are namespaced and atomic may have one.
    """

    namespaced: bool = False
    atomic: bool = False
    dimension: int = 0

    @property
    def indexing(self) -> dict[str, Any]:
        """The indexing that such a collection is created with."""
        more = [name for name, wanted in ((NAMESPACES, self.namespaced), (VERSION, self.atomic)) if wanted]
        return {"allow": [*INDEXING["allow"], *more]}

    @property
    def settings(self) -> dict[str, Any]:
        """What such a collection is created with, in createCollection's form."""
        vector = {"vector": {"dimension": self.dimension, "metric": COSINE}} if self.dimension else {}
        return {"indexing": self.indexing, **vector}

    @property
    def takes_vectors(self) -> bool:
        """Whether such a collection may have vectors, as that of a LangGraphStore may."""
        return self.namespaced and self.atomic

    @property
    def arguments(self) -> str:
        """How a store is told: ``namespaced=True``, say; empty for the plain form."""
        return ", ".join(f"{name}=True" for name in ("namespaced", "atomic") if getattr(self, name))

    def of_settings(self, settings: Mapping[str, Any]) -> CollectionForm:
        """Return this form with the dimension that an existing collection has; vectors that it does not compare by
        their cosine are none of ours."""
        vector = settings.get("vector") if self.takes_vectors else None
        is_ours = isinstance(vector, Mapping) and vector.get("metric", COSINE) == COSINE
        dimension = vector.get("dimension") if is_ours else 0  # type: ignore[union-attr]
        return self._replace(dimension=dimension if isinstance(dimension, int) else 0)


_CONFLICT = "EXISTING_COLLECTION_DIFFERENT_SETTINGS"

COSINE: Final = "cosine"


PLAIN: Final = CollectionForm()
"""The form of langchain-astradb."""

_FORMS = [CollectionForm(namespaced, atomic) for namespaced in (False, True) for atomic in (False, True)]


def check_settings(name: str, settings: Mapping[str, Any], form: CollectionForm = PLAIN) -> None:
    """Decide whether an existing collection can hold a store's values.

    Args:
        name: the collection.
        settings: what it was created with, in createCollection's form. Lexical and rerank settings do not matter here.
        form: what the store wants.

    Raises:
        CollectionConflictError: its indexing, ids or vector setting differ from what a store creates; one that takes
            vectors takes also a collection without, and one with vectors of another dimension.

    Warns:
        UserWarning: it indexes every field (as langchain-community's class made it); it is used all the same.
    """
    indexing = settings.get("indexing")
    of_store = next((each for each in _FORMS if indexing and _is_same(indexing, each.indexing)), None)
    is_others_vectors = settings.get("vector") and not (form if of_store is None else of_store).takes_vectors
    if is_others_vectors or settings.get("defaultId"):
        other = "a vector collection" if is_others_vectors else "a collection with ids of its own (defaultId)"
        raise DataAPIError.of(
            _CONFLICT, f"Collection '{name}' exists as {other}: choose another name for the store's collection."
        )
    if not indexing:
        warn_caller(
            f"Collection '{name}' is detected as having indexing turned on for all fields (either created manually or"
            " by older versions of this class). It works, but limits of indexed values apply (text of 8,000 bytes,"
            " lists of 1,000 items) and writes cost more. Consider copying it to a new collection."
        )
        return
    if of_store == form._replace(dimension=0):
        return
    if of_store is not None:
        made = f"with {of_store.arguments}" if of_store.arguments else "without namespaced=True and atomic=True"
        raise DataAPIError.of(
            _CONFLICT,
            f"Collection '{name}' was made {made}: open it so, over HTTP or by CQL, or choose another name.",
        )
    raise DataAPIError.of(
        _CONFLICT,
        f"Collection '{name}' is detected as having the following indexing policy: {json.dumps(indexing)}. This is"
        f" incompatible with the one a store uses, {json.dumps(form.indexing)}. Choose another name for the"
        " collection.",
    )


def _is_same(indexing: Any, wanted: Mapping[str, Any]) -> bool:
    """Return whether two settings of indexing say the same; the order of names means nothing."""
    allowed = indexing.get("allow") if isinstance(indexing, Mapping) and len(indexing) == 1 else None
    return isinstance(allowed, list) and sorted(map(str, allowed)) == sorted(wanted["allow"])
