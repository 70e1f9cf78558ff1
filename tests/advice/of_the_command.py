"""Advice of ``lckv``, and of what the tests of users start, followed."""

from __future__ import annotations

from typing import Any

from advice.world import Case, World, named
from langchain_kv.cli.secrets import read_secret
from langchain_kv.places.base import BackendOptions
from langchain_kv.places.cassandra_tables import CassandraTablesPlace
from langchain_kv.testing import DataAPIServer

STORE = "--db sqlite:kv.db --collection kv"


def said(line: str, stdin: bytes = b"") -> Any:
    return lambda w: w.lckv(line, stdin)


def works(*lines: str, stdin: bytes = b"") -> Any:
    return lambda w, message: [w.lckv_works(line, stdin) for line in lines]


def stored(line: str, value: str = '["x"]') -> Any:
    def wrong(w: World) -> str:
        w.lckv_works(f"set k '{value}' {STORE}")
        return w.lckv(line)

    return wrong


def without_stdin(w: World) -> str:
    from langchain_kv.cli.given import read_value

    w.patch.setattr("sys.stdin", None)
    return str(read_value(None, "-"))


def token_given(w: World, message: str) -> None:
    assert read_secret("--token", f"@{w.file('token', 'abc')}") == "abc"


def fault(**arguments: Any) -> Any:
    def wrong(w: World) -> None:
        w.server.fail(**arguments)

    return wrong


def fault_works(**arguments: Any) -> Any:
    def right(w: World, message: str) -> None:
        w.server.fail(**arguments)
        w.server.heal()

    return right


def backed_up_as(w: World, message: str) -> None:
    w.lckv_works(f"set k 1 {STORE}")
    w.lckv_works(f"backup sqlite:kv.db {named(r'write (.*)[.]$', message.strip())}")


CASES = [
    Case("FILE is a path, not a URL: write", said("backup sqlite:kv.db sqlite:copy.db"), backed_up_as),
    Case(
        ": give sqlite:PATH, not the URL of a",
        said("backup memory: copy.db"),
        lambda w, m: [w.lckv_works(f"set k 1 {STORE}"), w.lckv_works("backup sqlite:kv.db copy2.db")],
    ),
    Case(
        "prints one value: give one key, or leave it out",
        said(f"get a b --text {STORE}"),
        lambda w, m: (
            [w.lckv_works(f"set {k} '\"t\"' {STORE}") for k in "ab"]
            + [w.lckv_works(f"get a --text {STORE}"), w.lckv_works(f"get a b {STORE}")]
        ),
    ),
    Case(
        "would be gone with this one: give sqlite:PATH",
        said("set k 1 --db memory: --collection kv"),
        works(f"set k 1 {STORE}"),
    ),
    Case("check --db, or have lckv set make it", said(f"get k {STORE}"), works(f"set k 1 {STORE}", f"get k {STORE}")),
    Case(
        "There is no stdin to read the value from: give it as JSON, or as @FILE",
        without_stdin,
        lambda w, m: [w.file("v", "1"), w.lckv_works(f"set k 1 {STORE}"), w.lckv_works(f"set k @v {STORE}")],
    ),
    Case("to a file, or set its environment variable", said(f"get k --token abc {STORE}"), token_given),
    Case("leave out --text", stored(f"get k --text {STORE}"), works(f"get k {STORE}")),
    Case(
        "--text and --bytes exclude each other: give one",
        said(f"set k x --text --bytes {STORE}"),
        works(f"set k x --text {STORE}", f"set k x --bytes {STORE}"),
    ),
    Case("): use --bytes", said(f"set k - --text {STORE}", b"\xff"), works(f"set k - --bytes {STORE}", stdin=b"\xff")),
    Case(
        "or use --text or --bytes",
        said(f"set k text {STORE}"),
        works(
            f"set k '\"text\"' {STORE}",
            f"set k '[1, 2]' {STORE}",
            f"set k text --text {STORE}",
            f"set k text --bytes {STORE}",
        ),
    ),
    Case(
        "-0 and --json exclude each other: give one",
        stored(f"keys -0 --json {STORE}"),
        works(f"keys -0 {STORE}", f"keys --json {STORE}"),
    ),
    Case(
        "Give either KEY... or --prefix",
        said(f"del {STORE}"),
        works(f"set k 1 {STORE}", f"del k {STORE}", f"del --prefix k --yes {STORE}"),
    ),
    Case(
        "Nothing was removed: give --yes to remove them, or --dry-run to see them",
        stored(f"del --prefix k {STORE}"),
        works(f"get k {STORE}", f"del --prefix k --dry-run {STORE}", f"del --prefix k --yes {STORE}"),
    ),
    Case(": write it out", said(f"get k --t 5 {STORE}"), works(f"set k 1 {STORE}", f"get k --timeout 5 {STORE}")),
    Case(
        "is missing: give",
        said("set k 1 --db sqlite:kv.db"),
        lambda w, message: w.lckv_works(f"set k 1 --db sqlite:kv.db {named(r'give (--collection) NAME', message)} kv"),
    ),
    Case(
        ". Nothing was removed: give --yes",
        stored(f"clear {STORE}"),
        works(f"get k {STORE}", f"clear --yes {STORE}", f"drop --yes {STORE}"),
    ),
    Case(
        "use lckv clear for that",
        stored(f"del --prefix '' --yes {STORE}"),
        works(f"get k {STORE}", f"clear --yes {STORE}"),
    ),
    Case(
        "Only a file can be compacted: give sqlite:PATH",
        said("compact --db http://127.0.0.1:1"),
        works(f"set k 1 {STORE}", "compact --db sqlite:kv.db"),
    ),
    Case(
        "Only a file can tell what has expired without removing it: leave out --dry-run",
        said("purge --dry-run --db http://127.0.0.1:1 --collection kv"),
        works(f"set k 1 {STORE}", f"purge {STORE}"),
    ),
    Case(
        "keeps no list of its collections: name the one that is meant",
        lambda w: CassandraTablesPlace("ks").collections(BackendOptions("kv", "ks")),
        works(f"set k 1 {STORE}", f"info {STORE}"),
    ),
    Case(
        "is not known: give bash, zsh or fish",
        said("completion tcsh"),
        works("completion bash", "completion zsh", "completion fish"),
    ),
    # servers of tests
    Case(
        "give it a file of its own (sqlite:PATH)",
        lambda w: DataAPIServer("http://h"),
        lambda w, m: DataAPIServer(f"sqlite:{w.tmp}/own.db"),
    ),
    Case(
        "or a delay_s= alone: give one",
        fault(),
        lambda w, m: [
            fault_works(**one)(w, m)
            for one in ({"status": 500}, {"code": "UNAVAILABLE_DATABASE"}, {"drop": True}, {"delay_s": 1})
        ],
    ),
]
