"""Expiry, update and add on one file by many processes."""

from __future__ import annotations

import json
import mmap
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from langchain_kv import KVStore
from langchain_kv.runtime import clock

START = """
import json, mmap, struct, sys, threading
from langchain_kv import KVStore
from langchain_kv.runtime import clock

def use_clock(path):
    with open(path, "r+b") as file:
        shared = mmap.mmap(file.fileno(), 8)
    clock._now_ns = lambda: struct.unpack("<q", shared[:8])[0]

url, number = sys.argv[1], int(sys.argv[2])
"""

READER = (
    START
    + """
use_clock(sys.argv[3])
store = KVStore("kv", url)
begun_ms, last_ms = int(sys.argv[4]), int(sys.argv[5])
keys = [f"k{i}" for i in range(300)]
served = listed = reads = 0
print("ready", flush=True)
sys.stdin.readline()
while (now := clock.now_ms()) < last_ms:
    served += sum(value is not None and value <= now for value in store.mget(keys))
    served += sum(value <= now for _, value in store.yield_items())
    listed += sum(begun_ms + int(key[1:]) + 1 <= now for key in store.yield_keys())
    reads += 1
    print("read", flush=True)
    if number == 0:
        store.purge()
print(json.dumps([served, listed, reads]))
"""
)

UPDATER = (
    START
    + """
store = KVStore("kv", url)
def work():
    for _ in range(400):
        store.update("n", lambda old: (old or 0) + 1)
threads = [threading.Thread(target=work) for _ in range(8)]
print("ready", flush=True)
sys.stdin.readline()
for thread in threads: thread.start()
for thread in threads: thread.join()
print("null")
"""
)

ADDER = (
    START
    + """
store = KVStore("kv", url)
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(store.add([(f"k{i}", number) for i in range(50)])))
"""
)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> Any:
    output = process.communicate()[0]
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])


@pytest.mark.slow
def test_what_has_expired_is_served_and_listed_by_none_of_eight_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, moments, start_ms = f"sqlite:{tmp_path}/kv.db", tmp_path / "clock", 1_800_000_000_000
    moments.write_bytes(struct.pack("<q", start_ms * 1_000_000))
    with moments.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 8)
    monkeypatch.setattr(clock, "_now_ns", lambda: struct.unpack("<q", shared[:8])[0])
    with KVStore("kv", url) as store:
        for i in range(300):
            store.mset([(f"k{i}", start_ms + i + 1)], ttl_s=(i + 1) / 1_000)
        readers = [start(READER, url, number, moments, start_ms, start_ms + 300) for number in range(8)]
        go(readers)
        for step in range(0, 301, 30):  # each of them reads at each moment
            shared[:8] = struct.pack("<q", (start_ms + step) * 1_000_000)
            for reader in readers if step < 300 else ():
                assert reader.stdout is not None
                assert reader.stdout.readline() == "read\n"
                assert reader.stdout.readline() == "read\n"
        answers = [answer(reader) for reader in readers]

    assert [(served, listed) for served, listed, _ in answers] == [(0, 0)] * 8
    assert all(reads >= 10 for _, _, reads in answers)


@pytest.mark.slow
def test_no_increment_of_sixteen_threads_in_two_processes_is_lost(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/kv.db?synchronous=normal"
    with KVStore("kv", url) as store:
        processes = [start(UPDATER, url, number) for number in range(2)]
        go(processes)
        for process in processes:
            answer(process)
        assert store.mget(["n"]) == [6_400]


def test_of_four_processes_that_add_the_same_keys_each_key_has_one_winner(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/kv.db"
    with KVStore("kv", url) as store:
        processes = [start(ADDER, url, number) for number in range(4)]
        go(processes)
        winners: dict[str, int] = {}
        for number, process in enumerate(processes):
            added = answer(process)
            assert not winners.keys() & set(added)
            winners.update(dict.fromkeys(added, number))
        assert dict(store.yield_items()) == winners
        assert len(winners) == 50
