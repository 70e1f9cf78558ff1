"""LangGraphStore in memory, on a file, over HTTP and on Apache Cassandra."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from agents.questions import Opened, Questions
from langchain_kv import LangGraphStore
from langchain_kv.testing.contract import BaseFace
from places import OF_ITEMS, Place


class TestQuestions(Questions):
    @pytest.fixture(params=["sync", "async"])
    def opened(self, request: pytest.FixtureRequest, place: Place) -> Iterator[Opened]:
        collection = place.lend(OF_ITEMS)
        stores: list[LangGraphStore] = []

        def opened(**arguments: Any) -> BaseFace:
            stores.append(LangGraphStore(place.url, collection=collection, **place.arguments, **arguments))
            return BaseFace(stores[-1], request.param == "async", runner.run)

        with asyncio.Runner() as runner:
            yield opened
            for store in stores:
                store.close()
