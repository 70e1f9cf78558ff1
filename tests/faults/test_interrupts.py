"""Ctrl-C at every single point of a call on a file: the store goes on as if the call had failed or succeeded whole.

CPython raises KeyboardInterrupt in the main thread at the entry of a Python function and after a call of C. Those are
the moments at which ``sys.setprofile`` is told of a "call" and of a "c_return", so an exception raised by the profiler
there is an interrupt there; counting them tries each in turn.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from bodies import SQLiteEngine
from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.sqlite.file_lock import FileLock
from langchain_kv.errors import EngineError, UsageError
from langchain_kv.limits import SQLITE_IN_MAX

KV = CollectionName("default_keyspace", "kv")
MANY = [f"{number:05}" for number in range(SQLITE_IN_MAX + 1)]


def interrupted(call: Callable[[], object], moment: int) -> bool:
    """Run ``call`` with an interrupt at its ``moment``-th moment; return whether it lasted that long."""
    passed = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal passed
        if event in ("call", "c_return"):
            passed += 1
            if passed == moment + 1:  # the first is the entry of ``call`` itself
                raise KeyboardInterrupt

    try:
        sys.setprofile(profile)
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def in_another_thread(call: Callable[[], object]) -> object:
    """Return what ``call`` answers in a thread of its own, "stuck" where it does not end."""
    answers: list[object] = ["stuck"]

    def work() -> None:
        try:
            answers[0] = call()
        except BaseException as error:
            answers[0] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    return answers[0]


def write_and_read(engine: SQLiteEngine, value: bytes) -> bytes | None:
    engine.write(KV, [("other", value)])
    return engine.read(KV, ["other"])[0]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SQLiteEngine]:
    engine = SQLiteEngine(str(tmp_path / "kv.db"), synchronous="normal")
    engine.create_collection(KV, {})
    engine.write(KV, [(key, b"old") for key in MANY])
    yield engine
    assert in_another_thread(engine.close) is None
    # And nothing is left of it for the next one to trip over.
    again = SQLiteEngine(str(tmp_path / "kv.db"))
    assert write_and_read(again, b"again") == b"again"
    again.close()


CALLS: dict[str, Callable[[SQLiteEngine], object]] = {
    "read one": lambda engine: engine.read(KV, ["00001"]),
    "read in one transaction": lambda engine: engine.read(KV, MANY),
    "write": lambda engine: engine.write(KV, [("00001", b"new"), ("00002", b"new")]),
    "change": lambda engine: engine.modify(KV, ["00001", "00002"], lambda key, body: b"new"),
    "delete": lambda engine: engine.delete(KV, ["00001", "00002"]),
    "make a collection": lambda engine: engine.create_collection(CollectionName("default_keyspace", "new"), {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_at_any_moment_leaves_a_store_that_goes_on(name: str, engine: SQLiteEngine) -> None:
    moment, going_on = 0, True
    while going_on:
        moment += 1
        engine.write(KV, [("00001", b"old"), ("00002", b"old")])
        going_on = interrupted(lambda: CALLS[name](engine), moment)
        where = f"{name}, moment {moment}"
        assert not engine._pool._using, where
        assert engine._pool.joined is None, where
        value = b"%d" % moment
        assert in_another_thread(lambda: write_and_read(engine, value)) == value, where  # noqa: B023
        assert write_and_read(engine, value + b"!") == value + b"!", where
        assert engine.read(KV, ["00001"]) == engine.read(KV, ["00002"]), where  # all or none
    assert moment > 20


@pytest.mark.parametrize("name", ["read one", "write"])
def test_an_interrupt_of_the_first_call(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "kv.db")
    engine = SQLiteEngine(path, synchronous="normal")
    engine.create_collection(KV, {})
    engine.close()
    moment, going_on = 0, True
    while going_on:
        moment += 1
        engine = SQLiteEngine(path, synchronous="normal")
        going_on = interrupted(lambda: CALLS[name](engine), moment)  # noqa: B023 - it is called at once
        assert in_another_thread(lambda: write_and_read(engine, b"1")) == b"1", moment  # noqa: B023
        assert in_another_thread(engine.close) is None, moment
    assert moment > 100


def test_an_interrupt_of_a_failing_change(engine: SQLiteEngine) -> None:
    def fail(key: object, body: bytes | None) -> bytes:
        raise ValueError("no")

    def change() -> None:
        with pytest.raises(ValueError, match="no"):
            engine.modify(KV, ["00001"], fail)

    moment, going_on = 0, True
    while going_on:
        moment += 1
        going_on = interrupted(change, moment)
        assert in_another_thread(lambda: write_and_read(engine, b"1")) == b"1", moment
        assert write_and_read(engine, b"2") == b"2", moment


def test_releasing_a_lock_that_is_not_held_does_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    first, second = FileLock(path, wait_s=0.05), FileLock(path, wait_s=0.05)
    first.release()
    with first:
        second.release()
        assert in_another_thread(first.release) is None
        with pytest.raises(EngineError, match="Another process held"):
            second.acquire()
    with second:
        pass


def test_a_store_is_not_closed_inside_a_change(engine: SQLiteEngine) -> None:
    def close(key: object, body: bytes | None) -> bytes:
        engine.close()
        return b"new"

    with pytest.raises(UsageError, match="close it before or after"):
        engine.modify(KV, ["00001"], close)
    assert engine.read(KV, ["00001"]) == [b"old"]
