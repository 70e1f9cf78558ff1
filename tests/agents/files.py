"""Files that deepagents' StoreBackend keeps in a LangGraphStore, written all at once, listed and searched."""

from __future__ import annotations

import asyncio

from deepagents.backends import StoreBackend

from langchain_kv import LangGraphStore

COUNT = 600
"""More than the pages, of 100, in which the backend reads a namespace."""

PATHS = [f"/notes/{number:03}.md" for number in range(COUNT)]


def backend_of(store: LangGraphStore, user: str = "u1") -> StoreBackend:
    return StoreBackend(store=store, namespace=lambda _: ("files", user))


async def write_at_once(store: LangGraphStore) -> None:
    """Write every file, of one user, at a time, and one of another whose name begins alike."""
    written = await asyncio.gather(*(backend_of(store).awrite(path, f"needle {path}\nhay") for path in PATHS))
    await backend_of(store, "u10").awrite("/notes/other.md", "needle\n")
    assert [answer.error for answer in written] == [None] * COUNT


async def check_by_coroutines(store: LangGraphStore) -> None:
    files = backend_of(store)
    listed = (await files.als("/notes")).entries or []
    matches = (await files.agrep("needle", path="/")).matches or []
    assert sorted(entry["path"] for entry in listed) == PATHS
    assert sorted(match["path"] for match in matches) == PATHS
    assert len((await files.aglob("/notes/5*.md")).matches or []) == 100


def check_by_plain_calls(store: LangGraphStore) -> None:
    files = backend_of(store)
    assert sorted(entry["path"] for entry in files.ls("/notes").entries or []) == PATHS
    assert sorted(match["path"] for match in files.grep("needle", path="/").matches or []) == PATHS
