"""Advice on files, followed."""

from __future__ import annotations

import re
import shutil

from advice.world import Case, World
from langchain_kv import KVStore
from langchain_kv.places.backups import back_up, restore
from langchain_kv.places.schemes import parse_url

DB = "sqlite:kv.db"


def copied(w: World, file: str, *, replace: bool = False) -> None:
    w.kv(DB)
    back_up(parse_url(DB), file, replace=replace)


def onto_a_file(w: World) -> None:
    w.file("copy.db", "dear to someone")
    copied(w, "copy.db")


def removed_while_open(w: World) -> None:
    with KVStore("kv", DB) as store:
        store.mset([("a", 1)])
        for name in ("kv.db", "kv.db-wal", "kv.db-shm"):
            (w.tmp / name).rename(w.tmp / f"old{name[2:]}")
        store.mset([("a", 2)])


def back_or_anew(w: World, message: str) -> None:
    for name in ("kv.db", "kv.db-wal", "kv.db-shm"):
        (w.tmp / f"old{name[2:]}").rename(w.tmp / name)
    with KVStore("kv", DB) as store:
        assert store.mget(["a"]) == [1]
    (w.tmp / "kv.db").unlink()
    w.kv(DB)


def a_link_that_turned(w: World) -> None:
    for name in ("kv.db", "new.db"):
        w.kv(f"sqlite:{name}")
    (w.tmp / "link.db").symlink_to("kv.db")
    with KVStore("kv", "sqlite:link.db") as store:
        (w.tmp / "link.db").unlink()
        (w.tmp / "link.db").symlink_to("new.db")
        store.mget(["a"])


def beside_the_log_of_another(w: World) -> None:
    w.kv(DB)
    back_up(parse_url(DB), "copy.db")
    with KVStore("kv", DB) as store:
        store.mset([("a", 2)])
        for name in ("kv.db-wal", "kv.db.lock"):  # as a crash leaves them
            shutil.copy(name, f"left{name[5:]}")
    for name in ("kv.db-wal", "kv.db.lock"):
        shutil.copy(f"left{name[5:]}", name)
    (w.tmp / "copy.db").rename("kv.db")
    w.kv(DB)


def restored(w: World, message: str) -> None:
    """Run the command that the message names, on a backup of the name that it gives it."""
    if "Move" in message:
        (w.tmp / "kv.db").rename("FILE")
    else:
        with KVStore("kv", "sqlite:good.db") as store:
            store.mset([("a", 1)])
        back_up(parse_url("sqlite:good.db"), "FILE")
    found = re.search(r"lckv (restore FILE (?:'[^']*'|[^ ;,]*))", message)
    assert found, message
    w.lckv_works(found.group(1))
    with KVStore("kv", DB) as store:
        assert store.mget(["a"]) == [1]


def damaged(w: World) -> None:
    w.kv(DB)
    size = (w.tmp / "kv.db").stat().st_size
    (w.tmp / "kv.db").write_bytes((w.tmp / "kv.db").read_bytes()[:8192] + b"\xee" * (size - 8192))
    w.kv(DB)


def restored_onto(w: World, place: str, *, replace: bool = False) -> None:
    copied(w, "copy.db", replace=True)
    restore("copy.db", parse_url(place), replace=replace)


def restored_onto_notes(w: World) -> None:
    w.file("notes.txt", "dear to someone")
    restored_onto(w, "sqlite:notes.txt")


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
    Case("bring it back, or create the collection anew", removed_while_open, back_or_anew),
    Case("leads elsewhere by now: open a new store", a_link_that_turned, lambda w, m: w.kv("sqlite:link.db")),
    Case("remove what is left of it", log_without_its_file, log_removed),
    Case("or put a backup in its place: ", log_without_its_file, restored),
    Case("and put it in place: ", beside_the_log_of_another, restored),
    Case("the file is damaged; restore a backup: ", damaged, restored),
    Case(
        "give sqlite:PATH, not the URL of a",
        lambda w: restored_onto(w, "memory:"),
        lambda w, m: restored_onto(w, "sqlite:other.db"),
    ),
    Case(
        "is damaged; choose another path, or say to replace it",
        restored_onto_notes,
        lambda w, m: [
            restored_onto(w, "sqlite:other.db"),
            restored_onto(w, "sqlite:notes.txt", replace=True),
            w.kv("sqlite:notes.txt"),
        ],
    ),
    Case("to back up; check the path", lambda w: back_up(parse_url("sqlite:none.db"), "copy.db"), another_copy),
    Case("is the database itself; choose another path for the backup", lambda w: copied(w, "kv.db"), another_copy),
    Case(
        "choose another path, or say to replace it",
        onto_a_file,
        lambda w, m: [copied(w, "copy.db", replace=True), another_copy(w, m)],
    ),
]
