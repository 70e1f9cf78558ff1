"""``lckv backup``: what it makes, what it refuses, and what it leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_kv import KVByteStore, KVStore
from langchain_kv.cli.main import run
from langchain_kv.cli.notes import REFUSED, USAGE
from old_files import OLD, version


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    with KVStore("kv", url) as store:
        store.mset([("a", {"n": 1}), ("b", [1, 2])])
    return url


def require_values_of_old(path: Path) -> None:
    with KVStore("json", f"sqlite:{path}") as store:
        assert store.mget(["number", "big", "absent"]) == [1.5, 2**70, None]
    with KVByteStore("bytes", f"sqlite:{path}") as store:
        assert store.mget(["plain", "empty", "brace", "base64"]) == [b"hello", b"", b"{not json", b"hello"]


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
    assert names(tmp_path) == ["copy.db", "kv.db"]
    with KVStore("kv", f"sqlite:{copy}") as store:
        assert store.mget(["a", "b", "c"]) == [{"n": 1}, [1, 2], None]
        store.mset([("c", 3)])
    with KVStore("kv", database) as store:
        assert store.mget(["c"]) == [None]


@pytest.mark.parametrize(
    ("source", "to", "code", "message"),
    [
        ("sqlite:{}/kv.db", "{}/copy.db", 0, "would copy sqlite:{}/kv.db to {}/copy.db"),
        ("sqlite:{}/missing.db", "{}/copy.db", REFUSED, "missing.db"),
        ("sqlite:{}/notes.txt", "{}/copy.db", REFUSED, "not a database of langchain-kv"),
        ("sqlite:{}/kv.db", "{}/notes.txt", REFUSED, "--replace"),
        ("sqlite:{}/kv.db", "{}/kv.db", REFUSED, "the database itself"),
        ("redis://u:s3cret@h", "{}/copy.db", USAGE, "Only a file can be backed up"),
        ("nonsense", "{}/copy.db", USAGE, "is not a URL"),
    ],
)
def test_a_dry_run_refuses_what_a_backup_would_and_makes_nothing(
    database: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], source: str, to: str, code: int, message: str
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    backup = ["backup", source.format(tmp_path), to.format(tmp_path)]
    assert run([*backup, "--dry-run"]) == code
    error = capfd.readouterr().err

    assert message.format(tmp_path, tmp_path) in error
    assert "s3cret" not in error
    assert names(tmp_path) == ["kv.db", "notes.txt"]
    assert run(backup) == code


def test_a_file_of_an_older_version_is_copied_as_it_is_and_opens_as_a_store(tmp_path: Path) -> None:
    old, copy = shutil.copy(OLD, tmp_path / "old.db"), tmp_path / "copy.db"
    before = old.read_bytes()

    assert run(["backup", f"sqlite:{old}", str(copy)]) == 0
    assert old.read_bytes() == before
    assert (version(old), version(copy)) == (1, 1)
    require_values_of_old(copy)
    with KVStore("json", f"sqlite:{copy}") as store:
        store.mset([("new", 1)])
    assert (version(old), version(copy)) == (1, 2)
    require_values_of_old(copy)
    assert names(tmp_path) == ["copy.db", "old.db"]


@pytest.mark.parametrize("target", ["missing", "of this version", "of the older version"])
def test_a_backup_of_an_older_version_is_restored(target: str, database: str, tmp_path: Path) -> None:
    """Over whatever is there; and then one of this version over it."""
    place = f"sqlite:{tmp_path / 'there.db'}"
    backup = shutil.copy(OLD, tmp_path / "backup.db")
    if target != "missing":
        shutil.copy(OLD if target == "of the older version" else tmp_path / "kv.db", tmp_path / "there.db")

    assert run(["restore", str(backup), place]) == 0
    assert version(backup) == 1
    assert version(tmp_path / "there.db") == 1
    require_values_of_old(tmp_path / "there.db")
    assert run(["restore", str(tmp_path / "kv.db"), place]) == 0
    with KVStore("kv", place) as store:
        assert store.mget(["a", "b"]) == [{"n": 1}, [1, 2]]


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
@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["copied", "checked"])
@pytest.mark.parametrize("command", ["backup", "restore"])
def test_a_signal_ends_it_and_leaves_nothing(command: str, moment: str, number: int, tmp_path: Path) -> None:
    database = tmp_path / "kv.db"
    with KVStore("kv", f"sqlite:{database}") as store:
        store.mset([(str(number), "x" * 4_000) for number in range(5_000)])
    # The signal comes in the middle of the copying, in small steps, or of the check, which is one long statement.
    script = """
import os, signal, sys, threading
from langchain_kv.cli.main import main
from langchain_kv.engines.sqlite import backup as sqlite_backup

moment, number = sys.argv.pop(1), int(sys.argv.pop(1))
steps = []

def step(*left):
    steps.append(left)
    if moment == "copied" and len(steps) == 20:
        os.kill(os.getpid(), number)

class Checked:
    def __init__(self, copy):
        self.copy, self.stopped = copy, threading.Event()
    def execute(self, statement):
        os.kill(os.getpid(), number)
        if not self.stopped.wait(60):
            os._exit(9)
        return self.copy.execute(statement)
    def interrupt(self):
        self.stopped.set()

require_whole = sqlite_backup._require_whole
if moment == "checked":
    sqlite_backup._require_whole = lambda copy, source: require_whole(Checked(copy), source)
sqlite_backup._STEP_PAGES = 10
sqlite_backup._between_steps = step
sys.exit(main())
"""
    arguments = [f"sqlite:{database}", str(tmp_path / "copy.db")]
    if command == "restore":
        arguments = [str(database), f"sqlite:{tmp_path / 'copy.db'}"]
    done = subprocess.run(
        [sys.executable, "-c", script, moment, str(number), command, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")
    assert names(tmp_path) == ["kv.db"]


@pytest.mark.skipif(os.name != "posix", reason="sends SIGHUP")
def test_a_signal_that_is_ignored_as_under_nohup_does_not_end_it(database: str, tmp_path: Path) -> None:
    script = """
import os, signal, sys
from langchain_kv.cli.main import main
from langchain_kv.engines.sqlite import backup as sqlite_backup

signal.signal(signal.SIGHUP, signal.SIG_IGN)
sqlite_backup._between_steps = lambda *left: os.kill(os.getpid(), signal.SIGHUP)
sys.exit(main())
"""
    command = [sys.executable, "-c", script, "backup", database, str(tmp_path / "copy.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert names(tmp_path) == ["copy.db", "kv.db"]
