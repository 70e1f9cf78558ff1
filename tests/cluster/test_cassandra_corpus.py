"""On Apache Cassandra the local server answers what the real Data API was recorded to answer, or a named difference.

Documents have to come in the order of the recording even where none was promised: it is that of tokens, here and there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from conformance.replay import DATA, TOKEN, Answer, Client, create_collections, replay
from conformance.test_recorded_replies import FAMILIES
from langchain_kv.engines.base import CollectionName, Engine
from langchain_kv.engines.cassandra.engine import CassandraEngine
from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.server.http.running import run_in_thread

from .conftest import ready

pytestmark = pytest.mark.slow


class Difference(NamedTuple):
    """A recorded step that is answered in another way.

    Attributes:
        step: the family, the case and the number of the step.
        answer: part of what is answered instead.
        reason: why.
    """

    step: str
    answer: str
    reason: str

    def explains(self, line: str) -> bool:
        """Whether this is what the replay found."""
        given = line.removeprefix(f"{self.step}: ")
        return given != line and self.answer in given.split(" for ")[0]


DIFFERENT: Final = [
    Difference(
        "http, accept html, step 0",
        "Content-Type application/json;charset=UTF-8",
        "on every engine: docs/data-api-coverage.md",
    ),
    Difference(
        "read, in 100, step 1",
        "documents in another order",
        "documents of $in come in its order; the real server's come as its reads happened to end",
    ),
    Difference("read, count, step 3", '{"count": 2}', "on every engine: docs/data-api-coverage.md"),
]


KEYSPACE: Final = f"corpus_of_{os.getpid()}"
"""The collections of the recordings have fixed names, and the node is shared with the other process of the tests."""


class KeyspaceClient(Client):
    """Asks KEYSPACE what the recordings ask ``default_keyspace``."""

    def request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        recorded, own = b"default_keyspace", KEYSPACE.encode()
        asked = None if body is None else body.replace(recorded, own)
        answer = super().request(method, path.replace(recorded.decode(), KEYSPACE), asked, headers)
        return answer._replace(body=answer.body.replace(own, recorded))


@pytest.fixture(scope="module")
def engine(cluster: ClusterSettings) -> Iterator[Engine]:
    with ready(CassandraEngine(cluster)) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[Client]:
    with run_in_thread(engine, TOKEN) as url:
        engine.create_keyspace(KEYSPACE)
        client = KeyspaceClient(url)
        create_collections(client)
        yield client
        client.close()
    for name in ("corpus_kv", "corpus_any"):
        engine.drop_collection(CollectionName(KEYSPACE, name))


@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_those_of_the_real_server(client: Client, engine: Engine, family: str) -> None:
    def empty(name: str) -> None:
        collection = CollectionName(KEYSPACE, name)
        engine.delete(collection, engine.scan_ids(collection, limit=100_000))

    result = replay(client, family, empty, by_token=True)
    named = [difference for difference in DIFFERENT if difference.step.startswith(f"{family}, ")]
    unnamed = [line for line in result.differing if not any(difference.explains(line) for difference in named)]
    assert unnamed == []
    assert len(result.differing) == len(named)
    assert result.compared == FAMILIES[family]


def test_the_page_tells_how_many_steps_are_answered_alike() -> None:
    page = (DATA.parents[2] / "docs" / "cassandra.md").read_text()
    steps, different = sum(FAMILIES.values()), len(DIFFERENT)
    assert f"Of {steps:,} recorded steps {steps - different:,} are answered alike, {different} are not" in page
