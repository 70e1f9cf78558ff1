"""``lckv items``, ``count``, ``collections``, ``namespaces``, ``clear``, ``drop``, ``purge``, ``del --prefix``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from langchain_kv import KVByteStore, KVStore
from langchain_kv.server.http.running import run_in_thread
from running import Lckv


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'kv.db'}"


@pytest.fixture
def where(url: str) -> list[str]:
    return ["--db", url, "--collection", "kv"]


@pytest.fixture
def filled(url: str) -> None:
    with KVStore("kv", url) as store:
        store.mset([("a/1", 1), ("a/2", {"n": 2}), ("b", "text")])
        store.namespace("users", "u1").mset([("k", 1)])
        store.namespace("users").mset([("k", 2)])


pytestmark = pytest.mark.usefixtures("filled")


def lines(out: bytes) -> list[object]:
    return [json.loads(line) for line in out.splitlines()]


def test_items_are_objects_a_line(lckv: Lckv, where: list[str], url: str) -> None:
    with KVByteStore("kv", url) as store:
        store.mset([("raw", b"\0\xff")], ttl_s=1_000)

    code, out, error = lckv("items", *where)

    found = {item["key"]: item for item in lines(out)}  # type: ignore[index, call-overload]
    assert (code, error) == (0, "")
    assert found["a/2"] == {"key": "a/2", "value": {"n": 2}}
    assert found["raw"]["base64"] == "AP8="
    assert found["raw"]["expires_at"].endswith("Z")
    assert len(lines(lckv("items", "--limit", "2", *where).out)) == 2
    assert lines(lckv("items", "--prefix", "b", *where).out) == [{"key": "b", "value": "text"}]


def test_keys_are_counted(lckv: Lckv, where: list[str]) -> None:
    assert lckv("count", *where) == (0, b"5\n", "")
    assert lckv("count", "--prefix", "a/", *where).out == b"2\n"
    assert lckv("count", "--namespace", "users", *where).out == b"1\n"


def test_a_namespace_is_read_and_written_by_its_labels(lckv: Lckv, where: list[str], url: str) -> None:
    namespace = ["--namespace", "users", "--namespace", "u1"]
    assert lckv("get", "k", *namespace, *where).out == b"1\n"
    assert lckv("set", "new/key", "3", *namespace, *where).code == 0
    assert set(lckv("keys", *namespace, *where).out.split()) == {b"k", b"new/key"}
    with KVStore("kv", url) as store:
        assert store.namespace("users", "u1").mget(["new/key"]) == [3]


def test_namespaces_are_lists_of_labels(lckv: Lckv, where: list[str]) -> None:
    assert lines(lckv("namespaces", *where).out) == [["users"], ["users", "u1"]]
    assert lines(lckv("namespaces", "--namespace", "users", *where).out) == [["users"], ["users", "u1"]]
    assert lckv("namespaces", "--namespace", "use", *where).out == b""


def test_collections_of_a_keyspace_are_named(lckv: Lckv, where: list[str], url: str) -> None:
    lckv("set", "k", "1", "--db", url, "--collection", "other", "--keyspace", "ks")

    assert lckv("collections", "--db", url) == (0, b"kv\n", "")
    assert lckv("collections", "--db", url, "--keyspace", "ks", "--json").out == b'"other"\n'


@pytest.mark.parametrize("command", ["clear", "drop"])
def test_nothing_is_removed_without_yes(lckv: Lckv, where: list[str], command: str) -> None:
    code, out, error = lckv(command, *where)

    assert (code, out) == (2, b"")
    assert "5." in error
    assert "--yes" in error
    assert lckv(command, "--dry-run", *where) == (0, b"", "lckv: would be removed 5\n")
    assert lckv(command, "--dry-run", "--yes", *where).code == 0
    assert lckv("count", *where).out == b"5\n"


def test_a_namespace_is_cleared_and_the_rest_stays(lckv: Lckv, where: list[str]) -> None:
    assert lckv("clear", "--yes", "--namespace", "users", *where) == (0, b"", "lckv: removed 1\n")

    assert lckv("count", *where).out == b"4\n"


def test_a_dropped_collection_is_gone_and_dropping_it_again_is_no_error(lckv: Lckv, where: list[str]) -> None:
    assert lckv("drop", "--yes", *where) == (0, b"", "")

    assert lckv("collections", *where[:2]).out == b""
    assert lckv("drop", "--yes", *where).code == 0
    assert lckv("count", *where).code == 3


def test_keys_are_removed_by_prefix_with_yes_only(lckv: Lckv, where: list[str]) -> None:
    code, out, error = lckv("del", "--prefix", "a/", *where)
    assert (code, out) == (2, b"")
    assert ": 2." in error

    assert lckv("del", "--prefix", "a/", "--dry-run", *where) == (0, b"a/1\na/2\n", "")
    assert lckv("count", *where).out == b"5\n"

    assert lckv("del", "--prefix", "a/", "--yes", *where) == (0, b"", "lckv: removed 2\n")
    assert lckv("count", *where).out == b"3\n"
    assert lckv("del", "--prefix", "", "--yes", *where).code == 2
    assert lckv("del", "k", "--prefix", "a", "--yes", *where).code == 2
    assert lckv("del", *where).code == 2


def test_dry_runs_of_set_and_del_change_nothing(lckv: Lckv, where: list[str]) -> None:
    assert lckv("set", "b", "null", "--dry-run", *where) == (0, b"", "lckv: would store 4 bytes under 'b'\n")
    assert lckv("del", "b", "x", "--dry-run", *where) == (0, b"", "lckv: would remove 1 of 2 keys\n")
    assert lckv("get", "b", *where).out == b'"text"\n'


def test_a_dry_run_makes_no_file(lckv: Lckv, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    assert lckv("set", "b", "1", "--dry-run", "--db", f"sqlite:{path}", "--collection", "kv").code == 0

    assert not path.exists()


def test_what_expires_is_told_and_purged(lckv: Lckv, where: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert lckv("set", "short", "1", "--ttl", "90", *where).code == 0
    assert lckv("set", "long", "1", "--ttl", "7d", *where).code == 0
    from langchain_kv.runtime import clock

    now = clock._now_ns()
    monkeypatch.setattr(clock, "_now_ns", lambda: now + 100 * 10**9)

    assert lckv("get", "short", *where).code == 1
    assert lckv("get", "long", *where).out == b"1\n"
    assert lckv("purge", "--dry-run", *where).error == "lckv: would be removed 1\n"
    assert lckv("purge", *where).error == "lckv: removed 1\n"
    assert lckv("purge", "--quiet", *where).error == ""


@pytest.mark.parametrize("ttl", ["0", "-1", "1y", "", "nan", "1h30m"])
def test_a_time_that_is_none_is_refused(lckv: Lckv, where: list[str], ttl: str) -> None:
    code, _, error = lckv("set", "k", "1", f"--ttl={ttl}", *where)

    assert code == 2
    assert "--ttl takes a time above 0" in error


def test_zero_bytes_end_keys_for_xargs(lckv: Lckv, where: list[str]) -> None:
    lckv("set", "two\nlines", "1", *where)

    keys = lckv("keys", "-0", *where).out.split(b"\0")
    assert keys.pop() == b""
    assert b"two\nlines" in keys
    assert lckv("keys", "-0", "--json", *where).code == 2


@pytest.mark.parametrize("command", ["collections", "info", "check", "compact", "drop --yes --collection kv"])
def test_a_missing_file_is_said_and_not_made(lckv: Lckv, tmp_path: Path, command: str) -> None:
    code, out, error = lckv(*command.split(), "--db", f"sqlite:{tmp_path / 'no.db'}")

    assert (code, out) == (3, b"")
    assert "There is no file" in error
    assert not (tmp_path / "no.db").exists()


def over_http(url: str, run: Callable[[list[str]], None]) -> None:
    with KVStore("kv", url) as store, run_in_thread(store._backend._engine, "token") as address:  # type: ignore[attr-defined]
        run(["--db", address])


def test_a_data_api_lists_counts_and_drops(lckv: Lckv, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "token")

    def run(db: list[str]) -> None:
        assert lckv("collections", *db).out == b"kv\n"
        info = json.loads(lckv("info", *db).out)
        assert (info["reachable"], info["collections"]) == (
            True,
            [{"keyspace": "default_keyspace", "name": "kv", "keys": 5}],
        )
        assert lckv("check", *db).error == "lckv: read 5, problems 0\n"
        assert lckv("drop", "--yes", "--collection", "kv", *db).code == 0
        assert lckv("collections", *db).out == b""
        assert lckv("compact", *db).code == 2
        assert lckv("purge", "--dry-run", "--collection", "kv", *db).code == 2

    over_http(url, run)


def test_a_sql_database_lists_counts_and_drops(lckv: Lckv, tmp_path: Path) -> None:
    db = ["--db", f"sqlite+sqlalchemy:{tmp_path / 'sql.db'}"]
    for collection in ("one", "two"):
        assert lckv("set", "", "1", *db, "--collection", collection).code == 0

    assert lckv("collections", *db).out == b"one\ntwo\n"
    assert lckv("get", "", *db, "--collection", "two").out == b"1\n"
    assert lckv("drop", "--yes", *db, "--collection", "one").code == 0
    assert lckv("collections", *db).out == b"two\n"
    assert lckv("collections", *db, "--keyspace", "other").out == b""


def test_a_sql_database_without_the_table_is_told_in_the_words_of_the_command(lckv: Lckv, tmp_path: Path) -> None:
    db = ["--db", f"sqlite+sqlalchemy:{tmp_path / 'sql.db'}", "--collection", "kv"]

    code, out, error = lckv("count", *db)
    assert (code, out) == (3, b"")
    assert "has no table langchain_kv: lckv set makes it" in error
    assert "SetupMode" not in error
    assert lckv("drop", "--yes", *db) == (0, b"", "")  # that it is missing is no error
    assert lckv("set", "k", "1", *db).code == 0
    assert lckv("count", *db).out == b"1\n"


def test_the_url_may_stand_in_a_file(lckv: Lckv, url: str, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"{url}\n")

    assert lckv("count", "--db", f"@{tmp_path / 'url'}", "--collection", "kv").out == b"5\n"
    (tmp_path / "url").write_text("one\ntwo")
    code, _, error = lckv("count", "--db", f"@{tmp_path / 'url'}", "--collection", "kv")
    assert code == 2
    assert "does not hold a URL" in error


def test_a_damaged_file_is_told_and_what_can_be_read_is(lckv: Lckv, url: str, tmp_path: Path) -> None:
    with KVByteStore("blobs", url) as store:
        store.mset([(f"k{n}", b"x" * 4_000) for n in range(100)])
    path = tmp_path / "kv.db"
    data = bytearray(path.read_bytes())
    for start in range(len(data) - 20 * 8_192, len(data), 8_192):
        data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)

    code, out, error = lckv("check", "--db", url)

    found = lines(out)
    assert code == 1
    assert {problem["collection"] for problem in found} == {None, "blobs"}  # type: ignore[index, call-overload]
    named = {problem["key"] for problem in found} - {None}  # type: ignore[index, call-overload]
    assert 10 <= len(named) < 100  # two values a page
    assert all(lckv("get", str(key), "--db", url, "--collection", "blobs").code == 3 for key in list(named)[:3])
    good = next(f"k{n}" for n in range(100) if f"k{n}" not in named)
    assert lckv("get", good, "--db", url, "--collection", "blobs").out == b"x" * 4_000
    assert error.startswith("lckv: read ")
    assert lckv("check", "--db", url, "--json").code == 1
    assert lckv("get", "b", "--db", url, "--collection", "kv").out == b'"text"\n'


def test_a_file_whose_schema_has_damaged_text_is_told(lckv: Lckv, url: str, tmp_path: Path) -> None:
    with KVByteStore("blobs", url) as store:
        store.mset([("k", b"x")])
    path = tmp_path / "kv.db"
    data = bytearray(path.read_bytes())
    data[data.index(b"CREATE TABLE file_mark") + 7] = 0x86  # SQLite's message repeats it
    path.write_bytes(data)

    code, out, error = lckv("check", "--db", url)

    assert code == 1
    (told,) = lines(out)
    assert "the file is damaged; restore a backup" in told["problem"]  # type: ignore[index, call-overload]
    assert error == "lckv: read 0, problems 1\n"
    assert lckv("get", "k", "--db", url, "--collection", "blobs").code == 3


def test_a_file_whose_collections_cannot_be_listed_is_told_once(lckv: Lckv, url: str, tmp_path: Path) -> None:
    with KVByteStore("blobs", url) as store:
        store.mset([("k", b"x")])
    path = tmp_path / "kv.db"
    data = bytearray(path.read_bytes())
    data[data.index(b"CREATE TABLE file_mark")] = 0x86
    path.write_bytes(data)

    code, out, _ = lckv("check", "--db", url)

    assert (code, len(lines(out))) == (1, 1)
