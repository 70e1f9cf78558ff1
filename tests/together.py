"""One collection used by many processes at once: what each does, started, let go together, and its answer read."""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from langchain_kv import KVStore
from langchain_kv.runtime import clock

Where = dict[str, Any]
"""The arguments of a store."""

START_MS = 1_800_000_000_000

START = """
import faulthandler, json, mmap, signal, struct, sys, threading
from langchain_kv import KVStore
from langchain_kv.runtime import clock

faulthandler.register(signal.SIGUSR1)
where, number, told = json.loads(sys.argv[1])

def go():
    print("ready", flush=True)
    sys.stdin.readline()
"""

READER_AND_WRITER = (
    START
    + """
with open(told["clock"], "r+b") as file:
    shared = mmap.mmap(file.fileno(), 8)

def now_ns():
    return struct.unpack("<q", shared[:8])[0]

clock._now_ns = now_ns
begun_ms, last_ms, count = told["begun_ms"], told["last_ms"], told["count"]
keys = [f"k{i}" for i in range(count)]
served = listed = lost = rounds = 0
store = KVStore(**where)
go()
while (now := clock.now_ms()) < last_ms:
    answers = [store.mget(keys), dict(store.yield_items()), set(store.yield_keys())]
    then = clock.now_ms()
    served += sum(value is not None and value <= now for value in [*answers[0], *answers[1].values()])
    for i, key in enumerate(keys):
        moment = begun_ms + i + 1
        listed += moment <= now and key in answers[2]
        lost += moment > then and (answers[0][i] != moment or answers[1].get(key) != moment or key not in answers[2])
    frozen = now_ns()  # the moment that is stored is the one that is the value
    clock._now_ns = lambda: frozen
    store.mset([(f"w{number}_{rounds}", clock.now_ms() + 7)], ttl_s=0.007)
    clock._now_ns = now_ns
    if number == 0:
        store.purge()
    rounds += 1
    print(now, flush=True)
print(json.dumps({"served": served, "listed": listed, "lost": lost, "rounds": rounds}))
"""
)

UPDATER = (
    START
    + """
store = KVStore(**where)
def work():
    for _ in range(told["times"]):
        store.update("n", lambda old: (old or 0) + 1)
threads = [threading.Thread(target=work) for _ in range(8)]
go()
for thread in threads: thread.start()
for thread in threads: thread.join()
print("null")
"""
)

ADDER = (
    START
    + """
store = KVStore(**where)
go()
print(json.dumps(store.add([(f"k{i}", number) for i in range(told["count"])])))
"""
)


def processes(
    script: str, by: int, where: Where, /, **told: Any
) -> AbstractContextManager[list[subprocess.Popen[str]]]:
    """Give so many processes that run the script, each told its number, when all of them are ready."""
    return ready(script, [[json.dumps([where, number, told])] for number in range(by)])


@contextmanager
def ready(script: str, arguments: Sequence[Sequence[str]], **pipes: Any) -> Iterator[list[subprocess.Popen[str]]]:
    """Give processes that run the script, one for each of the lists of arguments, when all of them are ready."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **pipes
        )
        for given in arguments
    ]
    try:
        for process in started:
            assert line(process) == "ready"
        yield started
    except BaseException:
        for process in started:  # to tell on stderr what each of them is doing
            process.send_signal(signal.SIGUSR1)
        time.sleep(1)
        raise
    finally:
        for process in started:
            with process:
                process.kill()


def let_go(started: Sequence[subprocess.Popen[str]]) -> None:
    """Let all of them begin."""
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def complaints(script: str, arguments: Sequence[Sequence[str]]) -> list[str]:
    """Let processes that run the script begin at one time; return what each of them had to say on stderr."""
    with ready(script, arguments, stderr=subprocess.PIPE) as started:
        let_go(started)  # all of them, before any is waited for
        return [process.communicate(timeout=100)[1] for process in started]


def line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def answer(process: subprocess.Popen[str]) -> Any:
    """Return what a process says at its end."""
    output = process.communicate()[0]
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])


class SharedClock:
    """A clock that this process and others go by, and that moves when it is told.

    Args:
        path: a file to be, through which they share it.
    """

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)
        self.path = os.fspath(path)
        self.set(START_MS)

    def set(self, now_ms: int) -> None:
        self._shared[:8] = struct.pack("<q", now_ms * 1_000_000)

    def now_ns(self) -> int:
        return int(struct.unpack("<q", self._shared[:8])[0])


def expiry_by_eight_processes(where: Where, times: SharedClock, *, count: int = 300, steps: int = 10) -> None:
    """Have eight processes read, list and write while ``count`` values expire, one a millisecond; check what they saw.

    This process goes by ``times``, too.
    """
    assert clock.now_ms() == START_MS
    told = {"clock": times.path, "begun_ms": START_MS, "last_ms": START_MS + count, "count": count}
    with KVStore(**where) as store:
        for i in range(count):
            store.mset([(f"k{i}", START_MS + i + 1)], ttl_s=(i + 1) / 1_000)
        with processes(READER_AND_WRITER, 8, where, **told) as started:
            let_go(started)
            for moment in range(START_MS, START_MS + count, count // steps):
                times.set(moment)
                for process in started:
                    while int(line(process)) < moment:  # until each of them has looked at this moment
                        pass
            times.set(START_MS + count)
            answers = [answer(process) for process in started]
        times.set(START_MS + count + 10)
        assert list(store.yield_keys()) == []
    assert [(one["served"], one["listed"], one["lost"]) for one in answers] == [(0, 0, 0)] * 8
    assert all(one["rounds"] >= steps for one in answers)


def updates_by_sixteen_threads(where: Where, *, times: int) -> None:
    """Have eight threads in each of two processes add 1 to one number; check that none was lost."""
    with KVStore(**where) as store:
        with processes(UPDATER, 2, where, times=times) as started:
            let_go(started)
            for process in started:
                answer(process)
        assert store.mget(["n"]) == [16 * times]


def adding_at_once(where: Where, *, by: int, count: int = 50) -> None:
    """Have so many processes add the same keys at once; check that each key has one winner, whose value it is."""
    with KVStore(**where) as store:
        winners: dict[str, int] = {}
        with processes(ADDER, by, where, count=count) as started:
            let_go(started)
            for number, process in enumerate(started):
                added = answer(process)
                assert not winners.keys() & set(added)
                winners.update(dict.fromkeys(added, number))
        assert len(winners) == count
        assert dict(store.yield_items()) == winners
