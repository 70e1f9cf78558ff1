"""What a store's collection is created with, and whether an existing one fits: for the backends that keep documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langchain_kv.errors import DataAPIError
from langchain_kv.runtime.callers import warn_caller

__all__ = ["INDEXING", "check_settings"]

INDEXING: dict[str, Any] = {"allow": ["_id"]}
"""The indexing that the stores' collections are created with: the one langchain-astradb uses."""


_CONFLICT = "EXISTING_COLLECTION_DIFFERENT_SETTINGS"


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Decide whether an existing collection can hold a store's values.

    Args:
        name: the collection.
        settings: what it was created with, in createCollection's form. Lexical and rerank settings do not matter here.

    Raises:
        CollectionConflictError: its indexing, ids or vector setting differ from what a store creates.

    Warns:
        UserWarning: it indexes every field (as langchain-community's class made it); it is used all the same.
    """
    if settings.get("vector") or settings.get("defaultId"):
        other = "a vector collection" if settings.get("vector") else "a collection with ids of its own (defaultId)"
        raise DataAPIError.of(
            _CONFLICT, f"Collection '{name}' exists as {other}: choose another name for the store's collection."
        )
    indexing = settings.get("indexing")
    if not indexing:
        warn_caller(
            f"Collection '{name}' is detected as having indexing turned on for all fields (either created manually or"
            " by older versions of this class). It works, but limits of indexed values apply (text of 8,000 bytes,"
            " lists of 1,000 items) and writes cost more. Consider copying it to a new collection."
        )
    elif indexing != INDEXING:
        raise DataAPIError.of(
            _CONFLICT,
            f"Collection '{name}' is detected as having the following indexing policy: {json.dumps(indexing)}. This is"
            f" incompatible with the one a store uses, {json.dumps(INDEXING)}. Choose another name for the collection.",
        )
