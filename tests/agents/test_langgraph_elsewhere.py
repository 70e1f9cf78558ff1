"""LangGraphStore on the other targets: SQL databases, by drivers of both kinds, Redis, MongoDB, Upstash."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from agents.questions import Opened, Questions
from installed import need
from langchain_kv import LangGraphStore
from langchain_kv.testing.contract import BaseFace
from mongodb_servers import SERVERS, running_server
from mongodb_servers import missing as missing_mongodb
from redis_node import missing as missing_redis
from redis_node import running_redis
from sql_servers import DATABASES, running, server_of, url_of
from upstash_server import running_upstash

TARGETS = [*DATABASES, "redis", "upstash", *SERVERS]


def _started(name: str, ends: ExitStack) -> dict[str, Any]:
    """Start what a target needs; return the arguments of a store on it."""
    # Not pytest's directory, which only its owner may enter.
    directory = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="lckv-", ignore_cleanup_errors=True)))
    if name in DATABASES:
        return {"url": url_of(name, ends.enter_context(running(server_of(name), directory)))}
    if name in SERVERS:
        need(missing_mongodb(name))
        return {"url": ends.enter_context(running_server(name, directory))}
    need(missing_redis("redis"))
    node = ends.enter_context(running_redis(directory))
    if name == "redis":
        return {"url": node.url}
    server = ends.enter_context(running_upstash(node.port))
    return {"url": f"upstash+{server.url}", "token": server.token}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name.startswith("sqlite") else pytest.mark.slow) for name in TARGETS],
    ids=TARGETS,
)
def target(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    with ExitStack() as ends:
        yield _started(request.param, ends)


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
