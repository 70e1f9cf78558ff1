"""On Apache Cassandra the local server answers what the real Data API was recorded to answer, or a named difference.

Of the recorded collections ``kv`` is made as it was. ``any`` indexes every field, which this engine refuses to write:
its table indexes ``_id`` only, and the server is told otherwise. None of the server's commands asks an index, so that
nothing that they answer depends on it. How such a collection is refused is in the family ``admin``, without that.

Documents have to come in the order of the recording even where none was promised: it is that of tokens, here and there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from conformance.replay import DATA, TOKEN, Client, create_collections, replay
from conformance.test_recorded_replies import FAMILIES
from emptied_collections import ID_ONLY
from langchain_kv.engines.base import CollectionName, Engine, Settings
from langchain_kv.engines.cassandra.engine import CassandraEngine
from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.server.http.running import run_in_thread

from .conftest import ready

pytestmark = pytest.mark.slow

ANY = CollectionName("default_keyspace", "corpus_any")


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


REFUSED: Final = "a collection that indexes other fields than _id can be written by the real Data API only"

DIFFERENT: Final = [
    Difference("admin, keyspaces and collections, step 15", "INVALID_CREATE_COLLECTION_OPTIONS", REFUSED),
    Difference("admin, keyspaces and collections, step 22", "INVALID_CREATE_COLLECTION_OPTIONS", REFUSED),
    Difference(
        "admin, keyspaces and collections, step 26",
        '{"status": {"ok": 1}}',
        "the collection of step 22 is not there, so that it is made with the settings of this step",
    ),
    Difference(
        "admin, keyspaces and collections, step 27",
        '{"insertedIds": [{"$objectId": ',
        "by the settings of step 26 its ids are of another kind",
    ),
    Difference(
        "admin, keyspaces and collections, step 28",
        "FILTER_PATH_UNINDEXED",
        "by the settings of step 26 it indexes nothing",
    ),
    Difference(
        "admin, keyspaces and collections, step 29",
        '{"name": "y", "options": {"defaultId": {"type": "objectId"}, "indexing": {"deny": ["*"]}',
        "the collection of step 15 is not there, and that of step 22 has the settings of step 26",
    ),
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


class _TellsThatAnyIsIndexed(CassandraEngine):
    def create_collection(self, collection: CollectionName, settings: Settings) -> Settings:
        if collection != ANY:
            return super().create_collection(collection, settings)
        super().create_collection(collection, ID_ONLY)
        return settings

    def settings(self, collection: CollectionName) -> Settings:
        told = super().settings(collection)
        return {} if collection == ANY else told


@pytest.fixture(scope="module")
def engine(cluster: ClusterSettings) -> Iterator[Engine]:
    with ready(_TellsThatAnyIsIndexed(cluster)) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[Client]:
    with run_in_thread(engine, TOKEN) as url:
        client = Client(url)
        create_collections(client)
        yield client
        client.close()
    for name in ("corpus_kv", "corpus_any"):
        engine.drop_collection(CollectionName("default_keyspace", name))


@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_those_of_the_real_server(client: Client, engine: Engine, family: str) -> None:
    def empty(name: str) -> None:
        collection = CollectionName("default_keyspace", name)
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
