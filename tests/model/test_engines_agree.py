"""The same random commands on every engine, and on a dict, give the same answers."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from bodies import MemoryEngine, SQLiteEngine
from langchain_kv.engines.base import KEEP, Change, CollectionName, DocId, Engine, Keep
from langchain_kv.engines.ids import prefix_end
from langchain_kv.errors import StoreError

TEXTS = ["a", "aa", "ab", "b", "a\0", "é", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "a\U0010ffff"]
IDS: list[DocId] = [*TEXTS, b"", b"a", b"\xff", b"\xff\xff"]
PREFIXES = ["", *TEXTS, "\U0010ffff\U0010ffff", "c"]
COLLECTIONS = [CollectionName(keyspace, name) for keyspace in ("default_keyspace", "ks") for name in ("x", "y")]


def order(doc_id: DocId) -> tuple[bool, list[int]]:
    return (isinstance(doc_id, bytes), [*doc_id] if isinstance(doc_id, bytes) else [ord(c) for c in doc_id])


COMMANDS = [
    *["read", "write", "write", "modify", "delete", "scan", "scan", "scan_ids", "count", "clear", "settings", "list"],
    *["create", "create", "drop", "keyspaces", "create_keyspace", "drop_keyspace", "reopen"],
]


class Oracle:
    """Documents by collection in plain dicts, answering as slowly and plainly as can be."""

    def __init__(self) -> None:
        self.data: dict[CollectionName, dict[DocId, bytes]] = {}

    def scan(self, at: CollectionName, after: DocId | None, prefix: str, limit: int) -> list[tuple[DocId, bytes]]:
        found = [
            (doc_id, body)
            for doc_id, body in sorted(self.data[at].items(), key=lambda item: order(item[0]))
            if (after is None or order(doc_id) > order(after))
            and (not prefix or (isinstance(doc_id, str) and doc_id.startswith(prefix)))
        ]
        return found[:limit]


def outcome(call: Callable[[Engine], object], engine: Engine) -> object:
    try:
        return call(engine)
    except StoreError as error:
        return (type(error), str(error))


def a_change(seed: int) -> Change:
    def change(doc_id: DocId, body: bytes | None) -> bytes | Keep | None:
        choice = random.Random(f"{seed}{doc_id!r}{body!r}").randrange(4)
        return (KEEP, None, b"new", (body or b"") + b"+")[choice]

    return change


def calls_of(
    at: CollectionName,
    ids: list[DocId],
    documents: list[tuple[DocId, bytes]],
    scan: dict[str, Any],
    change: Change,
    step: int,
) -> dict[str, Callable[[Engine], object]]:
    return {
        "read": lambda engine: engine.read(at, ids),
        "write": lambda engine: engine.write(at, documents),
        "modify": lambda engine: engine.modify(at, ids, change),
        "delete": lambda engine: engine.delete(at, ids),
        "scan": lambda engine: engine.scan(at, **scan),
        "scan_ids": lambda engine: engine.scan_ids(at, **scan),
        "count": lambda engine: engine.count(at, limit=scan["limit"]),
        "clear": lambda engine: engine.clear(at),
        "create": lambda engine: engine.create_collection(at, {"step": step}),
        "drop": lambda engine: engine.drop_collection(at),
        "settings": lambda engine: engine.settings(at),
        "list": lambda engine: engine.collections(at.keyspace),
        "keyspaces": lambda engine: engine.keyspaces(),
        "create_keyspace": lambda engine: engine.create_keyspace(at.keyspace),
        "drop_keyspace": lambda engine: engine.drop_keyspace("ks"),
        "reopen": lambda engine: None,
    }


@pytest.mark.parametrize("seed", range(6))
def test_random_commands_are_answered_alike(seed: int, tmp_path: os.PathLike[str]) -> None:
    dice = random.Random(seed)
    path = os.path.join(tmp_path, "kv.db")
    engines: list[Engine] = [MemoryEngine(), SQLiteEngine(path, synchronous="normal")]
    engines[1].create_keyspace("default_keyspace")
    oracle = Oracle()
    for step in range(400):
        at = dice.choice(COLLECTIONS)
        ids = dice.choices(IDS, k=dice.choice([0, 1, 3, 10]))
        documents = [(doc_id, b"%d" % dice.randrange(1_000)) for doc_id in ids]
        scan = {
            "after": dice.choice([None, *IDS]),
            "prefix": dice.choice(PREFIXES),
            "limit": dice.choice([1, 3, 100]),
        }
        command = dice.choice(COMMANDS)
        change = a_change(dice.randrange(1_000))
        calls = calls_of(at, ids, documents, scan, change, step)
        if command == "reopen":
            engines[1].close()
            engines[1] = SQLiteEngine(path, synchronous="normal")
        answers = [outcome(calls[command], engine) for engine in engines]
        assert answers[0] == answers[1], f"seed {seed}, step {step}: {command}"

        failed = isinstance(answers[0], tuple)
        if command == "scan" and not failed:
            assert answers[0] == oracle.scan(at, **scan), f"seed {seed}, step {step}"
        oracle.data = {
            found: dict(engines[0].scan(found, limit=1_000))
            for found in COLLECTIONS
            if found.keyspace in engines[0].keyspaces() and found.name in engines[0].collections(found.keyspace)
        }
        if command == "write" and not failed:
            assert {**oracle.data[at], **dict(documents)} == oracle.data[at]
    engines[1].close()


@pytest.mark.parametrize("seed", range(3))
def test_a_large_sorted_set_pages_like_a_sorted_list(seed: int) -> None:
    """Enough ids that blocks split, merge and vanish."""
    dice = random.Random(seed)
    engine = MemoryEngine()
    at = COLLECTIONS[0]
    engine.create_collection(at, {})
    expected: set[str] = set()
    for _ in range(60):
        added = {f"{dice.randrange(20_000):05}" for _ in range(dice.choice([1, 5, 3_000]))}
        engine.write(at, [(doc_id, b"x") for doc_id in added])
        expected |= added
        start = f"{dice.randrange(20_000):05}"
        in_order = sorted(expected)
        assert engine.scan_ids(at, after=start, limit=2_500) == [i for i in in_order if i > start][:2_500]
        prefix = start[:2]
        assert engine.scan_ids(at, prefix=prefix, limit=9_999) == [i for i in in_order if i.startswith(prefix)]
        removed = set(dice.sample(in_order, k=min(len(in_order), dice.choice([1, 100, 2_000]))))
        assert engine.delete(at, sorted(removed)) == len(removed)
        expected -= removed
    assert engine.scan_ids(at, limit=99_999) == sorted(expected)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        ("", None),
        ("a", "b"),
        ("\U0010ffff", None),
        ("a\U0010ffff", "b"),
        ("\ud7ff", "\ue000"),
        ("a\uffff", "a\U00010000"),
    ],
)
def test_the_end_of_a_prefix(prefix: str, end: str | None) -> None:
    assert prefix_end(prefix) == end
