"""Advice on files, followed."""

from __future__ import annotations

import shutil

from advice.world import Case, World
from langchain_kv import KVStore
from langchain_kv.backends.backups import back_up
from langchain_kv.places.targets import parse_target

DB = "sqlite:kv.db"


def copied(w: World, file: str, *, replace: bool = False) -> None:
    w.kv(DB)
    back_up(parse_target(DB), file, replace=replace)


def onto_a_file(w: World) -> None:
    w.file("copy.db", "dear to someone")
    copied(w, "copy.db")


def replaced_while_open(w: World) -> None:
    with KVStore("kv", DB) as store:
        store.mset([("a", 1)])
        for name in ("kv.db", "kv.db-wal", "kv.db-shm"):
            (w.tmp / name).rename(w.tmp / f"old{name[2:]}")
        store.mset([("a", 2)])


def log_without_its_file(w: World) -> None:
    w.file("kv.db-wal", "of a database that is gone")
    w.kv(DB)


def log_removed(w: World, message: str) -> None:
    (w.tmp / "kv.db-wal").unlink()
    w.kv(DB)


def directory_made(w: World, message: str) -> None:
    (w.tmp / "new").mkdir()
    w.kv("sqlite:new/kv.db")


def directory_as_file(w: World) -> None:
    (w.tmp / "kv.db").mkdir()
    w.kv(DB)


def another_path(w: World, message: str) -> None:
    w.kv("sqlite:another.db")


def another_copy(w: World, message: str) -> None:
    copied(w, "another.db")
    shutil.copy("another.db", "moved.db")
    w.kv("sqlite:moved.db")


CASES = [
    Case("does not exist; create it first", lambda w: w.kv("sqlite:new/kv.db"), directory_made),
    Case("choose another path for the database", directory_as_file, another_path),
    Case(
        "was removed or replaced while it was open; close the store and open a new one",
        replaced_while_open,
        lambda w, m: w.kv(DB),
    ),
    Case("or remove what is left of it", log_without_its_file, log_removed),
    Case("to back up; check the path", lambda w: back_up(parse_target("sqlite:none.db"), "copy.db"), another_copy),
    Case("is the database itself; choose another path for the backup", lambda w: copied(w, "kv.db"), another_copy),
    Case(
        "choose another path, or say to replace it",
        onto_a_file,
        lambda w, m: [copied(w, "copy.db", replace=True), another_copy(w, m)],
    ),
]
