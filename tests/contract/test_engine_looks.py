"""What engines find among many rows of which few are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_kv.engines.base import CollectionName, Ending, Engine, Held, Row
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.engines.sqlite.engine import SQLiteEngine

NAME = CollectionName("default_keyspace", "c")
HELD = Held('"003', '"\\')
ENDING = Ending(',"at":"[0-9][0-9][0-9]"[}][}]', 3, 3)


@pytest.fixture(params=["memory", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    engine = MemoryEngine() if request.param == "memory" else SQLiteEngine(str(tmp_path / "kv.db"))
    engine.create_collection(NAME, {})
    yield engine
    engine.close()


def row(key: str, at: str, *, expires_at: int | None = None) -> Row:
    return key, b'{"_id":"%b","value":{"x":1,"at":"%b"}}' % (key.encode(), at.encode()), False, expires_at


def test_beginnings_are_found_each_once_whatever_stands_in_ids(engine: Engine) -> None:
    ids = ["pa|1", "pa|2", "pa|", "pb|1", "pb\0c|\0|x", "p\U0010ffff|1", "pnone", "pz", "p\u00e9|1", "q|1", "|", "p|"]
    engine.write(NAME, [row(key, "aaa") for key in ids])
    engine.write(NAME, [row("pgone|1", "aaa", expires_at=5), row("plives|1", "aaa", expires_at=50)])
    engine.write(NAME, [(b"\x01|", b"{}", False, None)])
    found = engine.beginnings(NAME, prefix="p", end="|", now_ms=10)
    assert sorted(found) == sorted(["pa|", "pb|", "pb\0c|", "p\U0010ffff|", "p\u00e9|", "p|", "plives|"])
    assert engine.beginnings(NAME, prefix="pq", end="|", now_ms=10) == []


def test_beginnings_of_many_rows_are_found(engine: Engine) -> None:
    engine.write(NAME, [row(f"p{n % 7}|{n}", "aaa") for n in range(2_500)])
    assert sorted(engine.beginnings(NAME, prefix="p", end="|", now_ms=10)) == [f"p{n}|" for n in range(7)]


def test_what_holds_a_text_is_scanned_page_by_page(engine: Engine) -> None:
    engine.write(NAME, [row(f"p{n:03}", f"{n % 10:03}") for n in range(100)] + [row("q", "003")])
    found: list[Row] = []
    while page := engine.scan_holding(NAME, HELD, after=found[-1][0] if found else None, prefix="p", limit=4):
        found += page
    wanted = [f"p{n:03}" for n in range(3, 100, 10)]
    assert [key for key, body, *_ in found if b'"003"' in body] == wanted
    if isinstance(engine, SQLiteEngine):
        assert [key for key, *_ in found] == wanted
        (whole,) = [engine.scan_holding(NAME, HELD, prefix="p", limit=100)]
        assert [key for key, *_ in whole] == wanted


def test_ids_are_ranked_by_their_ending_on_a_file(tmp_path: Path) -> None:
    engine = SQLiteEngine(str(tmp_path / "kv.db"))
    engine.create_collection(NAME, {})
    engine.write(NAME, [row("c", "001"), row("b", "003"), row("a", "003"), row("d", "002"), row("z", "009")])
    assert engine.ids_by_ending(NAME, ENDING, start="a", end="e", limit=3) == ["a", "b", "d"]
    assert engine.ids_by_ending(NAME, ENDING, start="a", end="zz", limit=None) == ["z", "a", "b", "d", "c"]
    assert engine.ids_by_ending(NAME, ENDING, start="x", end="y", limit=3) == []
    others: list[Row] = [
        ("bb", b'{"_id":"bb"}', False, None),
        ("bb", b"raw", True, None),
        ("bb", b"", True, None),
        row("bb", "001", expires_at=5),
        ("bb", b'{"_id":"bb","value":{"x":{"at":"001"}}}', False, None),
    ]
    for other in others:
        engine.write(NAME, [other])
        assert engine.ids_by_ending(NAME, ENDING, start="a", end="e", limit=3) is None
        assert engine.ids_by_ending(NAME, ENDING, start="c", end="e", limit=3) is not None
    engine.close()


def test_memory_does_not_look_by_endings() -> None:
    engine = MemoryEngine()
    engine.create_collection(NAME, {})
    assert engine.ids_by_ending(NAME, ENDING, start="a", end="e", limit=3) is None


def test_what_a_pattern_means_is_a_character_of_a_text(tmp_path: Path) -> None:
    engine = SQLiteEngine(str(tmp_path / "kv.db"))
    engine.create_collection(NAME, {})
    engine.write(NAME, [row("a", "*?["), row("b", "xyz"), row("c", "*?]")])
    assert [key for key, *_ in engine.scan_holding(NAME, Held('"*?[', '"'), limit=9)] == ["a"]
    assert [key for key, *_ in engine.scan_holding(NAME, Held('"x', "Yy"), prefix="b", limit=9)] == ["b"]
    assert engine.scan_holding(NAME, Held('"X', "y"), limit=9) == []
    engine.close()
