"""Advice of the commands that move values, followed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from langchain_classic.storage import LocalFileStore

from advice.world import Case, World, named
from langchain_kv import KVByteStore
from langchain_kv.backends.left_behind import FolderBackend
from langchain_kv.places.layouts import place_of_layout
from langchain_kv.stores.sql import SQLStore

KV = "--collection kv"
COPY = f"copy sqlite:a.db sqlite:b.db {KV}"


def stored(w: World, *files: str) -> None:
    for number, file in enumerate(files):
        w.lckv_works(f"set k {number} --db sqlite:{file} {KV}")


def onto_itself(w: World) -> str:
    stored(w, "a.db")
    return w.lckv(f"copy sqlite:a.db sqlite:a.db {KV}")


def elsewhere(w: World, message: str) -> None:
    w.lckv_works(COPY)
    w.lckv_works(f"copy sqlite:a.db sqlite:a.db {KV} --to-collection other")


def without_stdin(w: World) -> None:
    from langchain_kv.cli.commands import dumping

    w.patch.setattr("sys.stdin", None)
    with dumping._opened("-"):
        pass


def from_a_file(w: World, message: str) -> None:
    first = '{"lckv":1}\n'
    last = json.dumps({"end": True, "count": 0, "sha256": hashlib.sha256(first.encode()).hexdigest()})
    w.lckv_works(f"load {w.file('dump', first + last)} --db sqlite:b.db {KV}")


def with_another_file(w: World) -> str:
    stored(w, "a.db")
    w.file("dear", "letter")
    return w.lckv(f"{COPY} --resume dear")


def of_another_copy(w: World) -> str:
    stored(w, "a.db")
    w.file("r", '{"lckv_resume": 1, "from": "elsewhere", "to": "there", "prefix": "", "after": "a"}')
    return w.lckv(f"{COPY} --resume r")


def there_with_something_else(w: World) -> str:
    stored(w, "a.db", "b.db")
    return w.lckv(COPY)


IMPORT = "import-from {} sqlite:b.db --layout {} --collection kv"


def imported(source: str, layout: str) -> Any:
    return lambda w: w.lckv(IMPORT.format(source, layout))


def from_a_folder(w: World, message: str) -> None:
    LocalFileStore(w.tmp / "root").mset([("a", b"1")])
    w.lckv_works(IMPORT.format("root", "files"))


def with_a_name(w: World, message: str) -> None:
    with SQLStore(namespace="mine", db_url="sqlite:///left.db") as store:
        store.create_schema()
        store.mset([("a", b"1")])
    w.lckv_works(f"{IMPORT.format('left.db', 'sql')} --name mine")


def parsed(layout: str) -> Any:
    """The URL that the message shows names a place, where there is a server or not."""
    return lambda w, message: place_of_layout(layout, named(r"write (\S+)[.]", message).replace(":PORT", ":1"), "x")


def changing_a_folder(w: World) -> None:
    LocalFileStore(w.tmp / "root").mset([("a", b"1")])
    FolderBackend(str(w.tmp / "root")).put_many([])


def after_a_copy(w: World, message: str) -> None:
    from_a_folder(w, message)
    w.lckv_works("set a 2 --db sqlite:b.db --collection kv")


def packed_onto_itself(w: World) -> str:
    with KVByteStore("kv", "sqlite:a.db") as store:
        store.mset([("a", b"[1.5]")])
    return w.lckv(f"pack-embeddings sqlite:a.db sqlite:a.db {KV}")


CASES = [
    Case("give the root_path of the LocalFileStore", imported("root", "files"), from_a_folder),
    Case("give --name", imported("left.db", "sql"), with_a_name),
    Case(
        "names no database: write mongodb://HOST:PORT/DATABASE",
        imported("mongodb://h --name x", "mongodb"),
        parsed("mongodb"),
    ),
    Case(
        "names no keyspace: write cassandra://HOST/KEYSPACE",
        imported("cassandra://h --name x", "cassandra"),
        parsed("cassandra"),
    ),
    Case("is only read: copy its values to a target of lckv, and change them there", changing_a_folder, after_a_copy),
    Case(
        "FROM and TO are one collection: give --to-collection",
        packed_onto_itself,
        lambda w, m: w.lckv_works(f"pack-embeddings sqlite:a.db sqlite:a.db {KV} --to-collection new"),
    ),
    Case("FROM and TO are one collection of one target: give another", onto_itself, elsewhere),
    Case("There is no stdin to read the dump from: give a file", without_stdin, from_a_file),
    Case(
        "does not say how far a copy came: give another file to --resume",
        with_another_file,
        lambda w, m: w.lckv_works(f"{COPY} --resume other"),
    ),
    Case(
        "give the arguments of that one, or another file",
        of_another_copy,
        lambda w, m: w.lckv_works(f"{COPY} --resume other"),
    ),
    Case(
        "skip or replace such keys (--on-exists skip, or replace), or give a target without them",
        there_with_something_else,
        lambda w, m: [
            w.lckv_works(f"{COPY} --on-exists skip"),
            w.lckv_works(f"{COPY} --on-exists replace"),
            w.lckv_works(f"copy sqlite:a.db sqlite:c.db {KV}"),
        ],
    ),
]
