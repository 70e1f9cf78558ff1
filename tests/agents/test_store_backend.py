"""deepagents' files over LangGraphStore: none is lost, however many are written at a time."""

from __future__ import annotations

import asyncio

from agents.files import PATHS, backend_of, check_by_coroutines, check_by_plain_calls, write_at_once
from langchain_kv import LangGraphStore
from places import OF_ITEMS, Place


def test_every_file_that_is_written_at_once_is_listed_and_found_once(place: Place) -> None:
    with LangGraphStore(place.url, collection=place.lend(OF_ITEMS), **place.arguments) as store:
        asyncio.run(write_at_once(store))

        asyncio.run(check_by_coroutines(store))
        check_by_plain_calls(store)


def test_a_file_is_edited_and_removed(place: Place) -> None:
    with LangGraphStore(place.url, collection=place.lend(OF_ITEMS), **place.arguments) as store:
        files = backend_of(store)
        assert files.write(PATHS[0], "one\ntwo\n").error is None
        assert files.edit(PATHS[0], "two", "three").error is None
        assert "three" in str(files.read(PATHS[0]).file_data)

        assert files.delete(PATHS[0]).error is None
        assert files.read(PATHS[0]).error is not None
        assert files.ls("/notes").entries == []
