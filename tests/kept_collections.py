"""What ``lckv``'s commands on collections do, whatever the target: shared by the tests on each kind of server."""

from __future__ import annotations

import json

from running import Lckv

KEYSPACE, OTHER = "of_commands", "of_others"


def check_commands_on_collections(lckv: Lckv, url: str, *, keeps_empty: bool, tells_missing: bool) -> None:
    """Fill two collections and another keyspace's by the command; list, count, look at, empty and drop them.

    Args:
        lckv: runs a command.
        url: of the target, which names no keyspace.
        keeps_empty: whether a collection is there without a key.
        tells_missing: whether one that is missing is an error; elsewhere it is empty.
    """
    db = ["--db", url, "--keyspace", KEYSPACE]
    one, two = [*db, "--collection", "one"], [*db, "--collection", "two"]
    elsewhere = ["--db", url, "--keyspace", OTHER, "--collection", "elsewhere"]
    for where in (one, two):
        for key in ("a/1", "a/2", "b"):
            assert lckv("set", key, '{"n": 1}', *where) == (0, b"", "")
    assert lckv("set", "k", "1", "--namespace", "u", "--namespace", "v", *two).code == 0
    assert lckv("set", "k", "1", *elsewhere).code == 0

    assert lckv("collections", *db).out == b"one\ntwo\n"
    assert lckv("collections", "--db", url, "--keyspace", OTHER).out == b"elsewhere\n"
    assert lckv("count", *one).out == b"3\n"
    assert lckv("count", "--prefix", "a/", *one).out == b"2\n"
    assert lckv("namespaces", *two).out == b'["u", "v"]\n'
    assert lckv("namespaces", *one) == (0, b"", "")
    assert lckv("check", *db) == (0, b"", "lckv: read 7, problems 0\n")
    assert lckv("purge", *one) == (0, b"", "lckv: removed 0\n")
    _look(lckv, db)

    assert lckv("clear", *two).code == 2
    assert lckv("clear", "--yes", "--namespace", "u", "--namespace", "v", *two) == (0, b"", "lckv: removed 1\n")
    assert lckv("del", "--prefix", "a/", "--yes", *one).code == 0
    assert lckv("keys", *one).out == b"b\n"
    assert lckv("clear", "--yes", *two) == (0, b"", "lckv: removed 3\n")
    assert lckv("count", *two).out == b"0\n"
    _drop(lckv, one)
    assert lckv("collections", *db).out == (b"two\n" if keeps_empty else b"")
    for command in ("count", "namespaces", "check", "info", "purge", "clear --yes"):
        code, _, error = lckv(*command.split(), *one)
        assert code == (3 if tells_missing else 0), command
        assert ("There is no collection 'one'" in error) is tells_missing, command
    assert lckv("get", "k", *elsewhere).out == b"1\n"


def _look(lckv: Lckv, db: list[str]) -> None:
    facts = json.loads(lckv("info", *db).out)
    assert facts["reachable"] is True
    rows = [{"keyspace": KEYSPACE, "name": name, "keys": keys} for name, keys in (("one", 3), ("two", 4))]
    assert facts["collections"] == rows
    facts = json.loads(lckv("info", *db, "--collection", "one").out)
    assert facts["collections"] == rows[:1]
    assert facts["answered_ms"] > 0


def _drop(lckv: Lckv, one: list[str]) -> None:
    code, out, error = lckv("drop", *one)
    assert (code, out) == (2, b"")
    assert "Keys that are there: 1." in error
    assert lckv("drop", "--dry-run", *one) == (0, b"", "lckv: would be removed 1\n")
    for _ in range(2):  # that it is missing is no error
        assert lckv("drop", "--yes", *one) == (0, b"", "")
