"""The server answers, over HTTP and on each engine, what the real Data API was recorded to answer."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from conformance.replay import DATA, TOKEN, Client, cases, create_collections, replay
from langchain_kv.engines.base import Engine
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.server.http.running import run_in_thread

# Family: how many steps there are.
FAMILIES = {
    "admin": 50,
    "delete": 44,
    "filters": 691,
    "http": 20,
    "insert": 80,
    "projections": 630,
    "read": 100,
    "replace": 48,
    "requests": 36,
    "sorts": 463,
    "updates": 480,
    "values": 451,
}

# docs/data-api-coverage.md gives the reason of each.
DOCUMENTED = {
    "http": ["http, accept html, step 0: Content-Type application/json;charset=UTF-8 for text/html;charset=UTF-8"],
    "read": ['read, count, step 3: {"status": {"count": 2}} for {"status": {"count": 1}}'],
}


@pytest.fixture(scope="module", params=["memory", pytest.param("sqlite", marks=pytest.mark.slow)])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    engine: Engine
    if request.param == "memory":
        engine = MemoryEngine()
    else:
        engine = SQLiteEngine(str(tmp_path_factory.mktemp("server") / "kv.db"), synchronous="normal")
    with run_in_thread(engine, TOKEN) as url:
        client = Client(url)
        create_collections(client)
        yield client
        client.close()
    engine.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_replies_are_those_of_the_real_server(client: Client, family: str) -> None:
    result = replay(client, family)
    assert result.differing == DOCUMENTED.get(family, [])
    assert result.compared == FAMILIES[family]


def test_every_recorded_step_is_counted() -> None:
    assert {family: sum(len(case["steps"]) for case in cases(family)) for family in FAMILIES} == FAMILIES
    assert {path.stem for path in DATA.glob("*.jsonl")} == set(FAMILIES)


class Altered:
    """A client whose answers are wrong in one place, to see that the replay finds it."""

    def __init__(self, client: Client, old: bytes, new: bytes) -> None:
        self._client, self._old, self._new = client, old, new

    def command(self, path: str, command: dict[str, object] | bytes) -> object:
        answer = self._client.command(path, command)
        return answer._replace(body=answer.body.replace(self._old, self._new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"matchedCount":1', b'"matchedCount":2'),
        (b'"document":null', b'"document":{}'),
        (b"DOCUMENT_REPLACE_DIFFERENT_DOCID", b"DOCUMENT_ALREADY_EXISTS"),
        (b'"value":1}', b'"value":true}'),
        (b'"value":1}', b'"value":1,"more":null}'),
        (b'"scope":"DOCUMENT"', b'"scope":""'),
    ],
)
def test_the_replay_finds_a_wrong_answer(client: Client, old: bytes, new: bytes) -> None:
    assert replay(Altered(client, old, new), "replace").differing  # type: ignore[arg-type]


def test_the_coverage_page_names_each_difference() -> None:
    page = (DATA.parents[2] / "docs" / "data-api-coverage.md").read_text()
    for differences in DOCUMENTED.values():
        for difference in differences:
            family, name, _ = difference.split(", ", 2)
            assert f'`{family}`, "{name}"' in page, json.dumps(difference)
