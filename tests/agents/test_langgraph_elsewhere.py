"""LangGraphStore on the other targets: SQL databases, by drivers of both kinds, Redis, MongoDB, Upstash."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from agents.questions import Opened, Questions
from elsewhere import TARGETS, running_target
from langchain_kv import LangGraphStore
from langchain_kv.testing.contract import BaseFace


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    with running_target(request.param) as arguments:
        yield arguments


class TestQuestions(Questions):
    many = 300
    has_limit = False  # of 20 MB

    @pytest.fixture(params=["sync", "async"])
    def opened(self, request: pytest.FixtureRequest, target: dict[str, Any]) -> Iterator[Opened]:
        collection = f"c{uuid4().hex[:16]}"
        stores: list[LangGraphStore] = []

        def opened(**arguments: Any) -> BaseFace:
            stores.append(LangGraphStore(collection=collection, **target, **arguments))
            return BaseFace(stores[-1], request.param == "async", runner.run)

        with asyncio.Runner() as runner:
            yield opened
            for store in stores:
                store.close()
