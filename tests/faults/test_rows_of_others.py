"""What a user of the sqlite3 command, or damage, leaves in a file: one row of it spoils no other."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import served
from langchain_kv import CollectionConflictError, DamagedValueError, KVByteStore, KVStore, SetupMode
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.server.http.running import run_in_thread
from old_files import OLD, version

KV = CollectionName("default_keyspace", "kv")
GOOD = {"a": 1, "b": 2, "z": 3}
TEXT = '{"_id":"t","value":9}'


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "kv.db")
    with KVStore("kv", f"sqlite:{path}") as store:
        store.mset(list(GOOD.items()))
    return path


@pytest.fixture
def url(path: str) -> Iterator[str]:
    with closing(SQLiteEngine(path)) as engine, run_in_thread(engine, "token") as url:
        yield url


def run_sql(path: str | Path, sql: str, *values: Any) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql, values)


def insert(path: str, row: str, columns: str = "id, content") -> None:
    run_sql(path, f"INSERT INTO docs_1({columns}) VALUES({row})")


def ask(url: str, command: dict[str, Any]) -> dict[str, Any]:
    return served.ask(url, "token", command, "/v1/default_keyspace/kv")


# -- bodies -----------------------------------------------------------------------------------------------------------


def test_a_document_that_is_text_is_read_like_any(path: str, face: Any) -> None:
    insert(path, f"'t', '{TEXT}'")
    with KVStore("kv", f"sqlite:{path}") as store:
        opened = face(store)
        assert opened.mget(["a", "t", "z"]) == [1, 9, 3]
        assert dict(opened.items()) == {**GOOD, "t": 9}
        opened.mset([("t", 10)])
        assert opened.mget(["t"]) == [10]


@pytest.mark.parametrize(
    "command",
    [
        {"findOne": {"filter": {"_id": "t"}}},
        {"find": {}},
        {"find": {"filter": {"_id": {"$in": ["a", "t"]}}}},
        {"find": {"projection": {"value": True}}},
        {"countDocuments": {}},
        {"findOneAndUpdate": {"filter": {"_id": "t"}, "update": {"$set": {"seen": True}}}},
        {"deleteOne": {"filter": {"_id": "t"}}},
    ],
    ids=str,
)
def test_the_server_answers_over_a_document_that_is_text(command: dict[str, Any], path: str, url: str) -> None:
    insert(path, f"'t', '{TEXT}'")
    reply = ask(url, command)
    assert "errors" not in reply
    assert "data" in reply or "status" in reply


@pytest.mark.parametrize("body", ["9", "9.5", "'hello'", "''", "CAST(x'7bff' AS TEXT)"])
def test_what_is_no_document_is_one_damaged_value(body: str, path: str, url: str, face: Any) -> None:
    insert(path, f"'t', {body}")
    with KVStore("kv", f"sqlite:{path}") as store:
        opened = face(store)
        assert opened.mget(["a", "z"]) == [1, 3]
        assert sorted(opened.keys()) == ["a", "b", "t", "z"]
    found = ask(url, {"find": {}})["data"]["documents"]
    assert [document for document in found if document["_id"] != "t"] == [
        {"_id": key, "value": value} for key, value in GOOD.items()
    ]


def test_text_in_a_byte_store_is_its_bytes(path: str, face: Any) -> None:
    insert(path, "'t', 'hello', 1", "id, content, is_raw")
    insert(path, "'n', 9, 'yes'", "id, content, is_raw")
    with KVByteStore("kv", f"sqlite:{path}") as store:
        assert face(store).mget(["t", "n"]) == [b"hello", b"9"]


@pytest.mark.parametrize(
    ("body", "found"),
    [("'hello'", b"hello"), ("9", b"9"), ("9.5", b"9.5"), ("'é'", b"\xc3\xa9"), ("CAST(x'017b' AS TEXT)", b"{")],
)
def test_text_in_a_byte_store_of_an_old_file_is_its_bytes(body: str, found: bytes, tmp_path: Path, face: Any) -> None:
    path = shutil.copy(OLD, tmp_path / "old.db")
    run_sql(path, f"INSERT INTO docs_3 VALUES('t', {body})")
    for number in (1, 2):
        assert version(path) == number
        with KVByteStore("bytes", f"sqlite:{path}") as store:
            assert face(store).mget(["t", "plain"]) == [found, b"hello"]
            face(store).mset([("other", b"upgrades it")])


@pytest.mark.parametrize(
    ("body", "is_damaged"), [(f"'{TEXT}'", False), ("''", True), ("'{'", True), ("CAST(x'00' AS TEXT)", True)]
)
@pytest.mark.parametrize("kind", [KVStore, KVByteStore])
def test_text_in_an_old_file_is_a_document_or_damage(
    kind: Any, body: str, is_damaged: bool, tmp_path: Path, face: Any
) -> None:
    path = shutil.copy(OLD, tmp_path / "old.db")
    run_sql(path, f"INSERT INTO docs_6 VALUES('t', {body})")
    for _ in ("as it is", "upgraded"):
        with kind("empty", f"sqlite:{path}") as store:
            if is_damaged or kind is KVByteStore:  # 9 is no text of bytes
                with pytest.raises(DamagedValueError, match="'t'"):
                    face(store).mget(["t"])
            else:
                assert face(store).mget(["t"]) == [9]
            face(store).mdelete(["absent"])  # which upgrades it


@pytest.mark.parametrize("is_raw", [0, 1])
@pytest.mark.parametrize(
    ("moment", "is_there"),
    [("'soon'", True), ("x'ff'", True), ("''", True), ("9e15", True), ("9e99", True), ("1.5", False), ("'1'", False)],
)
def test_a_moment_of_expiry_that_is_none_is_no_moment(
    moment: str, is_there: bool, is_raw: int, path: str, face: Any
) -> None:
    insert(path, f"'t', '{TEXT}', {is_raw}, {moment}", "id, content, is_raw, expires_at")
    with closing(SQLiteEngine(path)) as engine:
        ((_, _, _, found),) = engine.read(KV, ["t"])  # type: ignore[misc]
        assert found is None or isinstance(found, int)
        assert (found is None or found > 10**15) == is_there
        assert [row[3] for row in engine.scan(KV, prefix="t", limit=9)] == [found]
        assert engine.scan_ids(KV, prefix="t", limit=9, now_ms=10**13) == (["t"] if is_there else [])
        assert engine.purge(KV, now_ms=10**13, limit=9) == (not is_there)
    with KVStore("kv", f"sqlite:{path}") as store:
        assert face(store).mget(["a", "z"]) == [1, 3]


# -- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["5", "5.5", "CAST(x'ff' AS TEXT)", "CAST(x'62ff' AS TEXT)"])
@pytest.mark.parametrize("prefix", [None, "b"])
def test_a_row_whose_id_no_store_can_have_is_left_out(key: str, prefix: str | None, path: str, face: Any) -> None:
    insert(path, f"{key}, '{TEXT}'")
    expected = {name: value for name, value in GOOD.items() if name.startswith(prefix or "")}
    with KVStore("kv", f"sqlite:{path}") as store:
        opened = face(store)
        assert dict(opened.items(prefix)) == expected
        assert sorted(opened.keys(prefix)) == sorted(expected)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_go_on_past_a_row_that_is_left_out(limit: int, path: str, url: str) -> None:
    for key in ("5", "CAST(x'62ff' AS TEXT)", "CAST(x'ff' AS TEXT)"):
        insert(path, f"{key}, '{TEXT}'")
    with closing(SQLiteEngine(path)) as engine:
        found: list[Any] = []
        while page := engine.scan_ids(KV, after=found[-1] if found else None, limit=limit):
            assert len(page) == min(limit, 3 - len(found))
            assert [row[0] for row in engine.scan(KV, after=found[-1] if found else None, limit=limit)] == page
            found += page
    assert found == ["a", "b", "z"]
    assert [document["_id"] for document in ask(url, {"find": {}})["data"]["documents"]] == ["a", "b", "z"]


# -- settings ---------------------------------------------------------------------------------------------------------

DAMAGED_SETTINGS = {
    "no JSON": "{bad",
    "no object": "5",
    "empty": "",
    "no UTF-8": b'{"a":"\xff"}',
    "zeros": b"\0" * 20,
    "deep": "[" * 100_000,
    "a list for indexing": '{"indexing":["_id"]}',
    "a number for paths": '{"indexing":{"allow":5}}',
}


@pytest.fixture(params=DAMAGED_SETTINGS)
def spoilt(request: pytest.FixtureRequest, path: str) -> str:
    with KVStore("other", f"sqlite:{path}"):
        pass
    settings = DAMAGED_SETTINGS[request.param]
    kind = "TEXT" if isinstance(settings, bytes) else "BLOB"
    run_sql(path, f"UPDATE collections SET settings=CAST(? AS {kind}) WHERE name='kv'", settings)
    return path


def test_values_are_read_and_written_whatever_became_of_the_settings(
    spoilt: str, face: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with KVStore("kv", f"sqlite:{spoilt}", setup_mode=SetupMode.OFF) as store:
        assert face(store).mget(["a"]) == [1]
    with pytest.warns(UserWarning, match="indexing turned on for all fields"):
        store = KVStore("kv", f"sqlite:{spoilt}")
    with store:
        face(store).mset([("c", 4)])
        assert dict(face(store).items()) == {**GOOD, "c": 4}
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "The settings of collection 'kv' are damaged" in record.getMessage()


def test_the_server_goes_on_and_settings_can_be_stored_again(spoilt: str, url: str) -> None:
    assert len(ask(url, {"find": {}})["data"]["documents"]) == 3
    assert "data" in ask(url, {"findOne": {"filter": {"_id": "a"}}})
    with closing(SQLiteEngine(spoilt)) as engine:
        wanted = {"indexing": {"allow": ["_id"]}}
        assert engine.collections("default_keyspace") == {"kv": {}, "other": wanted}
        assert engine.create_collection(KV, wanted) == wanted
        assert engine.create_collection(KV, {}) == wanted
        assert engine.collections("default_keyspace") == {"kv": wanted, "other": wanted}


def test_names_that_no_collection_can_have_spoil_no_list(path: str) -> None:
    run_sql(path, "INSERT INTO keyspaces VALUES(CAST(x'ff' AS TEXT))")
    run_sql(
        path,
        "INSERT INTO collections(keyspace, name, settings, made_in)"
        " VALUES('default_keyspace', CAST(x'ff' AS TEXT), '{}', 2)",
    )
    with closing(SQLiteEngine(path)) as engine:
        assert engine.keyspaces() == ["default_keyspace", "\ufffd"]
        assert list(engine.collections("default_keyspace")) == ["kv", "\ufffd"]


def test_settings_of_another_kind_are_no_damage(path: str) -> None:
    run_sql(path, "UPDATE collections SET settings=?", '{"indexing":{"deny":["x"]},"more":[1]}')
    with pytest.raises(CollectionConflictError, match="indexing policy"):
        KVStore("kv", f"sqlite:{path}")
