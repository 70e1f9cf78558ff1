"""``lckv restore``: what it puts back, what it refuses, and who goes on with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from langchain_kv import KVStore
from langchain_kv.cli.main import run
from langchain_kv.cli.notes import REFUSED, USAGE
from langchain_kv.errors import DataAPIError, UnknownCollectionError
from served import STRICT, TOKEN, Server


@pytest.fixture
def database(tmp_path: Path) -> str:
    """A file in which "a" is 2, and its backup, copy.db, in which it is 1."""
    url = f"sqlite:{tmp_path / 'kv.db'}"
    with KVStore("kv", url) as store:
        store.mset([("a", 1)])
        assert run(["backup", url, str(tmp_path / "copy.db")]) == 0
        store.mset([("a", 2)])
    return url


def names(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir())


def test_the_values_of_the_backup_are_back(database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["restore", str(tmp_path / "copy.db"), database]) == 0
    assert capfd.readouterr() == ("", "")
    assert names(tmp_path) == ["copy.db", "kv.db"]
    with KVStore("kv", database) as store:
        assert store.mget(["a"]) == [1]


@pytest.mark.parametrize(
    ("copy", "target", "code", "message"),
    [
        ("{}/copy.db", "sqlite:{}/new.db", 0, "would put a copy of {}/copy.db in the place of sqlite:{}/new.db"),
        ("{}/missing.db", "sqlite:{}/kv.db", REFUSED, "missing.db"),
        ("{}/notes.txt", "sqlite:{}/kv.db", REFUSED, "not a database of langchain-kv"),
        ("{}/kv.db", "sqlite:{}/kv.db", REFUSED, "the database itself"),
        ("{}/copy.db", "sqlite:{}/notes.txt", REFUSED, "--replace"),
        ("{}/copy.db", "redis://u:s3cret@h", USAGE, "Only a file can be restored"),
    ],
)
def test_a_dry_run_refuses_what_a_restore_would_and_makes_nothing(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], copy: str, target: str, code: int, message: str
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    restore = ["restore", copy.format(tmp_path), target.format(tmp_path)]
    assert run([*restore, "--dry-run"]) == code
    error = capfd.readouterr().err

    assert message.format(tmp_path, tmp_path) in error
    assert "s3cret" not in error
    assert names(tmp_path) == ["copy.db", "kv.db", "notes.txt"]
    assert run(restore) == code


def test_a_store_that_is_open_goes_on_with_it(database: str, tmp_path: Path) -> None:
    with KVStore("kv", database) as store:
        assert store.mget(["a"]) == [2]
        assert run(["restore", str(tmp_path / "copy.db"), database]) == 0
        assert store.mget(["a"]) == [1]
        store.mset([("b", 3)])
        assert sorted(store.yield_keys()) == ["a", "b"]


@pytest.mark.parametrize(
    ("copy", "target", "code", "message"),
    [
        ("{}/missing.db", "sqlite:{}/kv.db", REFUSED, "There is no backup at"),
        ("{}/notes.txt", "sqlite:{}/kv.db", REFUSED, "not a database of langchain-kv"),
        ("{}/kv.db", "sqlite:{}/kv.db", REFUSED, "the database itself"),
        ("{}/copy.db", "sqlite:{}/notes.txt", REFUSED, "--replace"),
        ("{}/copy.db", "sqlite:{}/nowhere/kv.db", REFUSED, "nowhere"),
        ("sqlite:{}/copy.db", "sqlite:{}/kv.db", USAGE, "a path, not a URL"),
        ("{}/copy.db", "memory:", USAGE, "Only a file can be restored"),
        ("{}/copy.db", "http://localhost:1", USAGE, "Only a file can be restored"),
        ("{}/copy.db", "{}/kv.db", USAGE, "sqlite:PATH"),
    ],
)
def test_what_cannot_be_restored_is_refused_in_one_line(
    copy: str, target: str, code: int, message: str, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("my notes\n" * 1_000)

    assert run(["restore", copy.format(tmp_path), target.format(tmp_path)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not [name for name in names(tmp_path) if ".new-" in name]
    assert (tmp_path / "notes.txt").read_text() == "my notes\n" * 1_000
    with KVStore("kv", database) as store:
        assert store.mget(["a"]) == [2]


def test_what_is_not_recognised_is_replaced_on_demand(database: str, tmp_path: Path) -> None:
    (tmp_path / "kv.db").write_bytes(bytes(20_000))
    assert run(["restore", str(tmp_path / "copy.db"), database]) == REFUSED
    assert run(["restore", "--replace", str(tmp_path / "copy.db"), database]) == 0
    with KVStore("kv", database) as store:
        assert store.mget(["a"]) == [1]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="an open file cannot be replaced elsewhere")
def test_a_server_goes_on_with_it(database: str, serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve("--db", database, LCKV_TOKEN=TOKEN, **STRICT)
    with KVStore("kv", server.url, token=TOKEN) as store:
        for _ in range(4):
            assert store.mget(["a"]) == [2]
        assert run(["restore", str(tmp_path / "copy.db"), database]) == 0
        for _ in range(4):
            assert store.mget(["a"]) == [1]
        store.mset([("a", 3)])
        for _ in range(4):
            assert store.mget(["a"]) == [3]
    assert server.end(signal.SIGTERM) == (0, "", "")
    with KVStore("kv", database) as store:
        assert store.mget(["a"]) == [3]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="an open file cannot be removed elsewhere")
@pytest.mark.parametrize("first", ["a read", "a write"])
def test_a_server_whose_file_was_removed_says_what_to_do_and_goes_on_once_it_is_done(
    first: str, database: str, serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve("--db", database, LCKV_TOKEN=TOKEN, **STRICT)
    with KVStore("kv", server.url, token=TOKEN, deadline_s=2) as store:
        store.mset([("a", 3)])
        for ending in ("", "-wal", "-shm"):
            (tmp_path / f"kv.db{ending}").unlink()
        calls = [lambda: store.mget(["a"]), lambda: store.mset([("a", 4)]), lambda: list(store.yield_keys())]
        for call in calls if first == "a read" else calls[::-1]:
            with pytest.raises(DataAPIError, match="create the collection anew") as caught:
                call()
            assert isinstance(caught.value, UnknownCollectionError)
        with KVStore("kv", server.url, token=TOKEN) as new:
            assert new.mget(["a"]) == [None]
            new.mset([("a", 5)])
        assert store.mget(["a"]) == [5]
    assert server.end(signal.SIGTERM) == (0, "", "")
    with KVStore("kv", database) as again:
        assert again.mget(["a"]) == [5]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="an open file cannot be replaced elsewhere")
def test_a_server_below_which_a_backup_was_moved_by_hand_names_the_way_out(
    database: str, serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve("--db", database, LCKV_TOKEN=TOKEN)
    with KVStore("kv", server.url, token=TOKEN) as store:
        store.mset([("a", 3)])
        os.replace(tmp_path / "copy.db", tmp_path / "kv.db")
        with pytest.raises(DataAPIError, match="lckv restore FILE"):
            store.mget(["a"])
        os.rename(tmp_path / "kv.db", tmp_path / "aside.db")
        assert run(["restore", str(tmp_path / "aside.db"), database]) == 0
        assert store.mget(["a"]) == [1]
    code, out, error = server.end(signal.SIGTERM)
    assert (code, out) == (0, "")
    assert "lckv restore FILE" in error
