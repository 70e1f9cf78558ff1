"""``lckv backup``: what it makes, what it refuses, and what it leaves behind."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_kv import KVStore
from langchain_kv.cli.main import INTERRUPTED, REFUSED, USAGE, run


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    with KVStore("kv", url) as store:
        store.mset([("a", {"n": 1}), ("b", [1, 2])])
    return url


def names(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir())


def test_the_copy_opens_as_a_store_with_every_value(database: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    before = os.umask(0)
    try:
        assert run(["backup", database, str(copy)]) == 0
    finally:
        os.umask(before)

    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert names(tmp_path) == ["copy.db", "kv.db", "kv.db.lock"]
    with KVStore("kv", f"sqlite:{copy}") as store:
        assert store.mget(["a", "b", "c"]) == [{"n": 1}, [1, 2], None]
        store.mset([("c", 3)])
    with KVStore("kv", database) as store:
        assert store.mget(["c"]) == [None]


def test_it_prints_nothing(database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["backup", database, str(tmp_path / "copy.db")]) == 0
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_there_is_replaced_only_on_demand(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.db"
    copy.write_text("theirs")

    assert run(["backup", database, str(copy)]) == REFUSED
    assert "is there already" in capsys.readouterr().err
    assert copy.read_text() == "theirs"
    assert run(["backup", "--replace", database, str(copy)]) == 0
    with KVStore("kv", f"sqlite:{copy}") as store:
        assert store.mget(["a"]) == [{"n": 1}]


@pytest.mark.parametrize(
    ("source", "copy", "code", "message"),
    [
        ("sqlite:{}/missing.db", "{}/copy.db", REFUSED, "There is no database at"),
        ("sqlite:{}/notes.txt", "{}/copy.db", REFUSED, "not a database of langchain-kv"),
        ("sqlite:{}/kv.db", "{}/kv.db", REFUSED, "the database itself"),
        ("sqlite:{}/kv.db", "{}/link.db", REFUSED, "the database itself"),
        ("sqlite:{}/kv.db", "{}/nowhere/copy.db", REFUSED, "nowhere"),
        ("sqlite:{}/kv.db", "sqlite:{}/copy.db", USAGE, "a path, not a URL"),
        ("memory:", "{}/copy.db", USAGE, "Only a file can be backed up"),
        ("http://localhost:1", "{}/copy.db", USAGE, "Only a file can be backed up"),
        ("{}/kv.db", "{}/copy.db", USAGE, "sqlite:PATH"),
    ],
)
def test_what_cannot_be_backed_up_is_refused_in_one_line(
    source: str, copy: str, code: int, message: str, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("my notes\n" * 1_000)
    (tmp_path / "link.db").symlink_to(tmp_path / "kv.db")
    before = names(tmp_path)

    assert run(["backup", source.format(tmp_path), copy.format(tmp_path)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert names(tmp_path) == before


@pytest.mark.parametrize("options", [[], ["--replace"]])
def test_a_name_in_use_by_a_database_is_refused_whatever_is_said(
    options: list[str], database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.db"
    with KVStore("kv", f"sqlite:{copy}") as store:
        store.mset([("theirs", 1)])

        assert run(["backup", *options, database, str(copy)]) == REFUSED
        assert store.mget(["theirs"]) == [1]


def test_a_directory_is_never_replaced(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "copy.db").mkdir()

    assert run(["backup", "--replace", database, str(tmp_path / "copy.db")]) == REFUSED
    assert "not a regular file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    database = tmp_path / "kv.db"
    with KVStore("kv", f"sqlite:{database}") as store:
        store.mset([(str(number), "x" * 4_000) for number in range(5_000)])
    # The signal comes when the copy has grown, in small steps, to a part of its size.
    script = """
import glob, os, signal, sys, threading
from langchain_kv.cli.main import main
from langchain_kv.engines.sqlite import backup as sqlite_backup

def interrupt():
    while not any(os.path.getsize(name) > 1_000_000 for name in glob.glob(sys.argv[-1] + ".new-*[0-9a-f]")):
        pass
    os.kill(os.getpid(), signal.SIGINT)

sqlite_backup._STEP_PAGES = 10
threading.Thread(target=interrupt, daemon=True).start()
sys.exit(main())
"""
    command = [sys.executable, "-c", script, "backup", f"sqlite:{database}", str(tmp_path / "copy.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == INTERRUPTED, done.stderr
    assert names(tmp_path) == ["kv.db", "kv.db.lock"]
