"""Files of schema 1, as 0.1.0 wrote them: read as they are, upgraded by the first write, never half of it.

``tests/data/files/schema1.db`` was written by that version; what it read of the file is what stands here.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import together
from langchain_kv import DamagedValueError, KVByteStore, KVStore
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite import rows as rows_module
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.errors import EngineBusyError, EngineError, EngineFileError
from langchain_kv.server.http.running import run_in_thread
from old_files import OLD, version

KILLS = int(os.environ.get("UPGRADE_KILLS", "20"))

deep: Any = 1
for _ in range(20):
    deep = [deep]

JSON = {
    "object": {"n": 1, "list": [1, 2.5, None, True, "x"], "deep": {"a": {"b": []}}},
    "text": "h\xe9llo \U0001f600 \0",
    "number": 1.5,
    "whole float": 2.0,
    "minus zero": -0.0,
    "big": 2**70,
    "bigger": 10**99,
    "over the limit of digits": 10**100,
    "tiny": 5e-324,
    "true": True,
    "empty": {},
    "empty list": [],
    "empty text": "",
    "dollar": {"$ref": 1, "": 2},
    "date": {"$date": 1_700_000_000_000},
    "uuid": {"$uuid": "not checked"},
    "deep": deep,
    "surrogate": "\ud800",
    "vector": [number * 0.1 for number in range(1_536)],
    "none": None,
    "key \0\x1f\xe9\U0001f600": "odd key",
}
BYTES = {
    "plain": b"hello",
    "empty": b"",
    "brace": b"{not json",
    "document": b'{"_id":"x","value":1}',
    "zero": b"\0\0",
    "escape": b"\1\1x",
    "all": bytes(range(256)),
    "large": bytes(range(256)) * 400,
    "none": None,
    "base64": b"hello",
}
DAMAGED = ["damaged", "damaged text"]
RAW = sorted(BYTES.keys() - {"none", "base64"})


def exactly(value: Any) -> str:
    """Return a text that differs where ``==`` does not: 2 and 2.0, 0.0 and -0.0, True and 1."""
    return repr(value)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(shutil.copy(OLD, tmp_path / "old.db"))


def check(path: str, face: Any) -> None:
    """Compare all that the stores of a file read with what its old version read."""
    with KVStore("json", f"sqlite:{path}") as store:
        assert exactly(face(store).mget(list(JSON))) == exactly(list(JSON.values()))
        for key, value in list(JSON.items())[::5]:
            assert exactly(face(store).mget([key])) == exactly([value])
        assert exactly(dict(face(store).items())) == exactly(dict(sorted(JSON.items())))
        assert face(store).keys() == sorted(JSON)
    with KVByteStore("bytes", f"sqlite:{path}") as store:
        assert face(store).mget(list(BYTES)) == list(BYTES.values())
        for key, value in BYTES.items():
            assert face(store).mget([key]) == [value]
        assert face(store).keys() == sorted([*BYTES, *DAMAGED])
        for key in DAMAGED:
            with pytest.raises(DamagedValueError, match=key):
                face(store).mget([key])
        assert face(store).keys("d") == ["damaged", "damaged text", "document"]
    with KVStore("empty", f"sqlite:{path}") as store:
        assert face(store).keys() == []
    with pytest.warns(UserWarning, match="indexing"), KVStore("all_indexed", f"sqlite:{path}") as store:
        assert face(store).mget(["k"]) == [[1, 2]]


def test_an_old_file_is_read_as_it_is(path: str, face: Any) -> None:
    before = Path(path).read_bytes()
    check(path, face)
    assert version(path) == 1
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize("by", ["a new key", "an old key", "a delete", "an update", "clear", "a collection"])
def test_the_first_write_upgrades_it_and_loses_nothing(path: str, face: Any, by: str) -> None:
    with closing(SQLiteEngine(path)) as engine:
        other = CollectionName("default_keyspace", "empty")
        if by == "a collection":
            engine.create_collection(CollectionName("other", "new"), {})
        elif by == "clear":
            engine.clear(other)
        elif by == "a delete":
            engine.delete(other, ["x"])
        elif by == "an update":
            engine.modify(other, ["x"], lambda *_: None)
        elif by == "an old key":
            (row,) = engine.read(CollectionName("default_keyspace", "json"), ["big"])
            assert row is not None
            engine.write(CollectionName("default_keyspace", "json"), [row])
        else:
            engine.write(other, [("x", b"{}", False, None)])
            engine.delete(other, ["x"])
    assert version(path) == 2
    check(path, face)


def rows(path: str, collection: str) -> dict[Any, tuple[bytes, bool]]:
    with closing(sqlite3.connect(path)) as connection:
        (number,) = connection.execute("SELECT id FROM collections WHERE name=?", [collection]).fetchone()
        return {
            doc_id: (body, bool(is_raw))
            for doc_id, body, is_raw in connection.execute(f"SELECT id, content, is_raw FROM docs_{number}")
        }


def test_what_an_upgraded_file_holds(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        before = dict(connection.execute("SELECT id, body FROM docs_3"))
    with closing(SQLiteEngine(path)) as engine:
        engine.create_collection(CollectionName("default_keyspace", "new"), {})
        assert list(engine.collections("default_keyspace")) == ["all_indexed", "bytes", "empty", "json", "new"]
        assert engine.keyspaces() == ["default_keyspace", "other"]
        assert engine.settings(CollectionName("other", "docs")) == {"indexing": {"deny": ["a"]}}
        assert engine.scan(CollectionName("other", "docs"), limit=9) == [
            ("t", b'{"_id":"t","a":[1,{"b":2}]}', False, None),
            (b"btrue", b'{"_id":true}', False, None),
            (b"n5", b'{"_id":5,"x":1}', False, None),
        ]
    found = rows(path, "bytes")
    assert {key: body for key, (body, is_raw) in found.items() if is_raw} == {key: BYTES[key] for key in RAW}
    documents = {key: body for key, (body, is_raw) in found.items() if not is_raw}
    assert documents == {key: before[key] for key in ["none", "base64", *DAMAGED]}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT max(id) FROM collections").fetchone() == (7,)  # 1 was dropped, long ago
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_new_file_and_an_upgraded_one_have_the_same_columns(path: str, tmp_path: Path) -> None:
    new = str(tmp_path / "new.db")
    columns = []
    for each in (path, new):
        with KVStore("json", f"sqlite:{each}") as store:
            store.mset([("x", 1)])
        with closing(sqlite3.connect(each)) as connection:
            (number,) = connection.execute("SELECT id FROM collections WHERE name='json'").fetchone()
            table = connection.execute(f"PRAGMA table_info(docs_{number})").fetchall()
            columns.append({column[1:] for column in table})
            names = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '%_expiry'").fetchall()
            assert (f"docs_{number}_expiry",) in names
    assert columns[0] == columns[1]


def test_what_expires_is_kept_beside_old_values(path: str, face: Any) -> None:
    with closing(SQLiteEngine(path)) as engine:
        gone = ("gone", b'{"_id":"gone","value":1}', False, 1)
        here = ("here", b'{"_id":"here","value":2}', False, 2**62)
        engine.write(CollectionName("default_keyspace", "json"), [gone, here])
    with KVStore("json", f"sqlite:{path}") as store:
        assert face(store).mget(["here", "big"]) == [2, 2**70]
        assert face(store).keys() == sorted([*JSON, "here"])


def served(path: str) -> Iterator[dict[str, Any]]:
    with closing(SQLiteEngine(path)) as engine, run_in_thread(engine, "t") as url:
        for where in ("default_keyspace/json", "default_keyspace/bytes", "other/docs"):
            body = b'{"find":{"options":{"limit":100}}}'
            request = urllib.request.Request(
                f"{url}/v1/{where}", body, {"Token": "t", "Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=30) as reply:
                answer = json.load(reply)
            for error in answer.get("errors", ()):
                del error["id"]
            yield answer


def test_the_server_answers_the_same_before_and_after(path: str) -> None:
    before = list(served(path))
    assert version(path) == 1
    with KVStore("json", f"sqlite:{path}") as store:
        store.mdelete(["x"])
    assert version(path) == 2
    assert list(served(path)) == before
    assert {"_id": "empty", "value": ""} in before[1]["data"]["documents"]
    assert {"_id": 5, "x": 1} in before[2]["data"]["documents"]
    assert sorted(key for error in before[1]["errors"] for key in error["documentIds"]) == DAMAGED


def test_a_file_that_is_upgraded_while_it_is_read_is_read_as_one_version(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    look = rows_module.columns_of

    def look_and_wait(connection: sqlite3.Connection) -> str:
        columns = look(connection)
        if not looked_at:
            looked_at.append(columns)
            with KVStore("other", f"sqlite:{path}?synchronous=normal") as other:
                other.mset([("x", 1)])
            assert version(path) == 2
        return columns

    with closing(SQLiteEngine(path)) as engine:
        monkeypatch.setattr(rows_module, "columns_of", look_and_wait)
        for _ in range(2):
            found = engine.read(CollectionName("default_keyspace", "bytes"), RAW)
            assert [row and row[1] for row in found] == [BYTES[key] for key in RAW]
            assert [row and row[2] for row in found] == [True] * len(RAW)
    assert looked_at


EMPTY = CollectionName("default_keyspace", "empty")
NEW = ("new", b'{"_id":"new","value":1}', False, None)


@pytest.mark.parametrize("count", [1, 2])
def test_an_upgrade_that_another_program_holds_up_is_made_by_a_later_write(path: str, count: int) -> None:
    new = [NEW, ("newer", b"{}", False, None)][:count]
    with closing(SQLiteEngine(path, wait_s=0.05)) as engine:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(2):
                with pytest.raises(EngineBusyError) as caught:
                    engine.write(EMPTY, new)
                assert caught.value.applied is False
            assert engine.read(EMPTY, ["new"]) == [None]
            other.execute("ROLLBACK")
        assert version(path) == 1
        engine.write(EMPTY, new)
        assert engine.read(EMPTY, ["new"]) == [NEW]
        assert len(engine._pool._open) <= 3  # no connection was left over
    assert version(path) == 2


@pytest.mark.filterwarnings("ignore:.*indexing")
def test_an_upgrade_that_finds_no_room_changes_nothing_and_is_made_by_a_later_write(path: str, face: Any) -> None:
    with closing(SQLiteEngine(path)) as engine:
        writer = engine._pool._locked(lambda: engine._pool._connect(time.monotonic() + 9))
        engine._pool._writer = writer
        (pages,) = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(EngineError, match="full") as caught:
            engine.write(EMPTY, [NEW])
        assert caught.value.applied is False
        assert version(path) == 1
        writer.execute("PRAGMA max_page_count=1000000")
        engine.write(EMPTY, [NEW])
        engine.delete(EMPTY, ["new"])
    assert version(path) == 2
    check(path, face)


def test_a_missing_table_keeps_no_other_from_being_written(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE docs_2")
    with closing(SQLiteEngine(path)) as engine:
        engine.write(EMPTY, [NEW])
        assert engine.read(EMPTY, ["new"]) == [NEW]
        for call in (engine.read, engine.delete):
            with pytest.raises(EngineError, match="'json', whose table is missing"):
                call(CollectionName("default_keyspace", "json"), ["big"])
    assert version(path) == 2


def test_a_store_goes_on_when_a_backup_of_an_old_file_is_restored_under_it(
    path: str, tmp_path: Path, face: Any
) -> None:
    new = str(shutil.copy(OLD, tmp_path / "new.db"))
    with closing(SQLiteEngine(path)) as backup, KVStore("json", f"sqlite:{new}") as store:
        for _ in range(3):  # the third is restored over an old one that was upgraded
            face(store).mset([("number", 2)])
            assert face(store).mget(["number"]) == [2]
            assert version(new) == 2
            backup.restore_to(new)
            assert version(new) == 1
            assert face(store).mget(["number", "big"]) == [1.5, 2**70]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT id, body FROM docs_3 WHERE id IN ('brace', 'plain')",
        "SELECT body FROM docs_3 WHERE id='brace'",
        "INSERT INTO docs_3(id, body) VALUES('plain', x'00') ON CONFLICT(id) DO UPDATE SET body=excluded.body",
        "INSERT INTO docs_4(id, body) VALUES('new', x'00') ON CONFLICT(id) DO UPDATE SET body=excluded.body",
        "INSERT INTO collections(keyspace, name, settings) VALUES('default_keyspace', 'new', '{}')"
        " ON CONFLICT DO NOTHING",
    ],
)
def test_a_program_of_the_old_version_that_has_the_file_open_fails_when_it_is_upgraded(
    path: str, statement: str, face: Any
) -> None:
    """It goes on with the statements of that version, which it has prepared: it may have looked at the version once."""
    with closing(sqlite3.connect(path)) as old:
        collections = old.execute("SELECT count(*) FROM collections").fetchone()
        old.execute("SELECT id, body FROM docs_3").fetchall()
        with KVStore("empty", f"sqlite:{path}") as store:
            face(store).mdelete(["x"])
        assert version(path) == 2
        with pytest.raises(sqlite3.Error, match=r"body|the file was upgraded to version 2: end this program"):
            old.execute(statement)
        old.rollback()
        assert old.execute("SELECT count(*) FROM collections").fetchone() == collections
    check(path, face)


def test_a_version_from_the_future_is_refused_untouched(path: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=3")
    before = Path(path).read_bytes()
    for act in (lambda s: s.mget(["a"]), lambda s: s.mset([("a", 1)]), lambda s: list(s.yield_keys())):
        with pytest.raises(EngineFileError, match=r"version 3.*versions up to 2.*untouched.*Install the newer"):
            with KVStore("json", f"sqlite:{path}") as store:
                act(store)
    assert Path(path).read_bytes() == before


# -- killed in the middle ---------------------------------------------------------------------------------------------

UPGRADING = """
import os, signal, sys
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite import connections
from langchain_kv.engines.sqlite.engine import SQLiteEngine

path, last = sys.argv[1], int(sys.argv[2])
upgrade, steps = connections.upgrade, 0

def step(*_):
    global steps
    steps += 1
    if steps == last:
        os.kill(os.getpid(), signal.SIGKILL)

def watched(connection):
    connection.set_progress_handler(step, 1)
    connection.set_trace_callback(step)
    upgrade(connection)
    connection.set_trace_callback(None)
    connection.set_progress_handler(None, 0)
    print(steps, flush=True)

connections.upgrade = watched
engine = SQLiteEngine(path)
engine.write(CollectionName("default_keyspace", "empty"), [("new", b'{"_id":"new","value":1}', False, None)])
engine.close()
"""


def upgrade_until(path: str, step: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", UPGRADING, path, str(step)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills with SIGKILL")
@pytest.mark.timeout(1_200)
@pytest.mark.filterwarnings("ignore:.*indexing")
def test_an_upgrade_that_is_killed_at_random_moments_loses_nothing(tmp_path: Path, face: Any) -> None:
    whole = shutil.copy(OLD, tmp_path / "whole.db")
    steps = int(upgrade_until(str(whole), 0).stdout)
    seed = int.from_bytes(os.urandom(3))
    chosen = random.Random(seed)
    for number in range(KILLS):
        path = str(shutil.copy(OLD, tmp_path / f"{number}.db"))
        for step in [chosen.randint(1, steps)] * (1 + number % 3):  # some are killed more than once
            done = upgrade_until(path, step)
            assert done.returncode == -signal.SIGKILL, (seed, number, done.stderr)
        assert version(path) == 1, (seed, number)
        check(path, face)
        assert upgrade_until(path, 0).returncode == 0, (seed, number)
        assert version(path) == 2
        with KVStore("empty", f"sqlite:{path}") as store:
            assert store.mget(["new"]) == [1]
            store.mdelete(["new"])
        check(path, face)


# -- several at once --------------------------------------------------------------------------------------------------

WRITING = """
import sys
from langchain_kv import KVByteStore, KVStore
path, name = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
with KVStore("json", f"sqlite:{path}") as store, KVByteStore("bytes", f"sqlite:{path}") as raw:
    assert raw.mget(["escape", "brace"]) == [b"\\1\\1x", b"{not json"]
    store.mset([(name, name)])
    raw.mset([(name, b"\\1{" + name.encode())])
    assert raw.mget(["escape", "brace", name]) == [b"\\1\\1x", b"{not json", b"\\1{" + name.encode()]
    assert store.mget([name, "big"]) == [name, 2**70]
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*indexing")
def test_several_processes_open_and_write_an_old_file_at_once(path: str, face: Any) -> None:
    names = [f"process {number}" for number in range(4)]
    assert together.complaints(WRITING, [[path, name] for name in names]) == [""] * 4

    assert version(path) == 2
    with KVStore("json", f"sqlite:{path}") as store, KVByteStore("bytes", f"sqlite:{path}") as raw:
        assert store.mget(names) == names
        assert raw.mget(names) == [b"\1{" + name.encode() for name in names]
        store.mdelete(names)
        raw.mdelete(names)
    check(path, face)
