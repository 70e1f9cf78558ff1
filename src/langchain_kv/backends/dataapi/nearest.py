"""What is nearest to a vector, as the service finds it by the vectors that documents have."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from langchain_kv.backends.base import Page, Stored, is_alive
from langchain_kv.backends.dataapi import commands, replies
from langchain_kv.backends.dataapi.retry import Call
from langchain_kv.backends.dataapi.verbs import Verbs
from langchain_kv.backends.own_vectors import APART
from langchain_kv.runtime.clock import now_ms
from langchain_kv.runtime.slices import Steps, in_slices
from langchain_kv.values.namespaces import is_in_tree

__all__ = ["compared", "listed_apart"]


async def compared(verbs: Verbs, call: Call, tree: str, vector: bytes, limit: int) -> tuple[Page, bool]:
    """Return what of a namespace, and of those below it, is nearest to a vector, and whether that is all there is.

    Args:
        verbs: on the collection.
        call: the operation.
        tree: as of ``Backend.scan_tree``.
        vector: see ``own_vectors.spelled_for_service``.
        limit: at most so many.
    """
    page = await verbs.send(call, commands.find_nearest(vector, limit, tree), replies.parse_page)
    items = await in_slices(_listed(page))
    now = now_ms()
    alive: Page = [
        (key, one) for key, one in items if isinstance(key, str) and is_in_tree(key, tree) and is_alive(one, now)
    ]
    return alive, len(items) < limit


async def listed_apart(verbs: Verbs, call: Call, tree: str) -> Page:
    """Return what of a namespace, and of those below it, the service cannot compare."""
    found: Page = []
    async with aclosing(verbs.pages(call, tree, values=True, namespace=APART + tree)) as pages:
        async for page in pages:
            found += [item for item in page if is_in_tree(item[0], tree)]
    return found


def _listed(page: replies.Page) -> Steps[list[tuple[Any, Stored]]]:
    """Return the documents of a page in order."""
    found: list[tuple[Any, Stored]] = []
    for number, items in enumerate(replies.documents(page)):
        if number:
            yield
        found += items
    return found
