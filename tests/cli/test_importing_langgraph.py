"""``lckv import-from --layout langgraph``: LangGraph's own stores, read again by ours."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.base import BaseStore
from langgraph.store.postgres import PostgresStore
from langgraph.store.sqlite import SqliteStore

from langchain_kv.cli.main import run
from langchain_kv.langgraph.store import LangGraphStore
from langchain_kv.testing import DataAPIServer
from sql_servers import running

COUNT = 1_100


@contextmanager
def theirs(kind: str, folder: Path) -> Iterator[tuple[BaseStore, str]]:
    """A store of LangGraph's own, and what lckv is told of it."""
    with ExitStack() as stack:
        if kind == "sqlite":
            path = str(folder / "memory.db")
            store: Any = stack.enter_context(SqliteStore.from_conn_string(path))
            url = path
        else:
            # Not pytest's directory, which only its owner may enter.
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="lckv-", ignore_cleanup_errors=True))
            url = stack.enter_context(running("postgresql", Path(made)))
            store = stack.enter_context(PostgresStore.from_conn_string(url))
        store.setup()
        yield store, url


def as_utc(moment: datetime | str) -> datetime:
    parsed = moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_our_store_has_the_items_of_theirs(tmp_path: Path, kind: str) -> None:
    to = f"sqlite:{tmp_path / 'kv.db'}"
    with theirs(kind, tmp_path) as (store, url):
        for number in range(COUNT):
            store.put(("users", f"u {number % 5}"), f"k/{number:04}", {"n": number, "ä": [None, 1.5, {"b": True}]})
        store.put(("short",), "k", {"n": 1}, ttl=60)
        items = [store.get(("short",), "k"), *store.search(("users",), limit=2 * COUNT)]
        more = ["--collection", "memory", "--verify"]
        assert run(["import-from", url, to, "--layout", "langgraph", *more]) == 0
        assert (
            run(["import-from", url, to, "--layout", "langgraph", *more]) == 0
        )  # nothing is there with something else
    with LangGraphStore(to, collection="memory") as ours:
        assert len(ours.search((), limit=2 * COUNT)) == len(items) == COUNT + 1
        assert ours.list_namespaces() == [("short",), *(("users", f"u {number}") for number in range(5))]
        for item in items:
            assert item is not None
            found = ours.get(item.namespace, item.key)
            assert found is not None
            assert (found.value, found.key, found.namespace) == (item.value, item.key, item.namespace)
            assert (found.created_at, found.updated_at) == (as_utc(item.created_at), as_utc(item.updated_at))


def test_items_go_over_http_into_the_collection_of_a_store_whether_it_is_there_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "test-token")
    with DataAPIServer() as server, theirs("sqlite", tmp_path) as (store, url):
        for number in range(10):
            store.put(("users", f"u{number % 2}"), f"k{number}", {"n": number})
        assert run(["import-from", url, server.url, "--layout", "langgraph", "--collection", "new"]) == 0
        with LangGraphStore(server.url, collection="there", token=server.token):
            pass
        there = ["--collection", "new", "--to-collection", "there", "--verify"]
        assert run(["copy", f"{server.url}/", server.url, *there]) == 0
        for collection in ("new", "there"):
            with LangGraphStore(server.url, collection=collection, token=server.token) as ours:
                assert {item.key for item in ours.search(("users", "u1"))} == {
                    f"k{number}" for number in range(1, 10, 2)
                }


def test_rows_whose_namespace_has_an_empty_label_are_named_and_do_not_end_the_import(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = f"sqlite:{tmp_path / 'kv.db'}"
    with theirs("sqlite", tmp_path) as (store, url):
        store.put(("a", "b"), "k", {"n": 1})
        store.put(("z",), "last", {"n": 2})
        for prefix in ("", "a..b"):
            store.conn.execute("INSERT INTO store(prefix, key, value) VALUES(?, 'odd', '{}')", [prefix])  # type: ignore[attr-defined]
        store.conn.commit()  # type: ignore[attr-defined]
        assert run(["import-from", url, to, "--layout", "langgraph", "--collection", "memory"]) == 5
    assert capsys.readouterr().err.count("has an empty label") == 2
    with LangGraphStore(to, collection="memory") as ours:
        assert {(item.namespace, item.key) for item in ours.search(())} == {(("a", "b"), "k"), (("z",), "last")}
