"""Writers of one file are killed at random moments; then every acknowledged batch is compared, byte for byte.

    python tests/faults/engine_crashes.py --cycles 200

A cycle starts one or three processes that write batches as fast as they can, each noting what was acknowledged, kills
them with SIGKILL, opens the file again and compares all that it holds. Several cycles use one file, one after another.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from langchain_kv.engines.base import CollectionName, Row
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.errors import StoreError, UnknownCollectionError

KV = CollectionName("default_keyspace", "kv")
PARTS = 10
"""New documents of a batch; two more overwrite those of the batch before."""
OVERWRITTEN = 2
TASKS = 8
REOPENED_AFTER = 24
"""Batches between two closings: kills meet opening, checkpoints and closing, too."""
FILE_MAX_BYTES = 48 * 1024 * 1024
LONGEST_LIFE_S = 0.4


class Setting(NamedTuple):
    """How a cycle writes."""

    size_bytes: int
    writers: int
    way: str
    synchronous: str


SETTINGS = [
    Setting(*setting) for setting in itertools.product((1_000, 60_000), (1, 3), ("sync", "async"), ("full", "normal"))
]


@dataclass
class Tally:
    """What was found."""

    cycles: int = 0
    acknowledged: int = 0
    compared: int = 0
    in_flight_stored: int = 0
    lost: int = 0
    torn: int = 0
    failed_checks: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def failures(self) -> int:
        return self.lost + self.torn + self.failed_checks + len(self.problems)

    def add(self, other: Tally) -> None:
        for name in ("cycles", "acknowledged", "compared", "in_flight_stored", "lost", "torn", "failed_checks"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.problems += other.problems


def body(writer: int, number: int, part: int | str, size_bytes: int) -> bytes:
    """Return what the document holds: made from its name, and unlike any other."""
    digest = hashlib.sha256(f"{writer}/{number}/{part}".encode()).hexdigest()
    text = (digest * (size_bytes // len(digest) + 1))[:size_bytes]
    return f'{{"_id":"{writer}-{number:07}-{part}","value":"{text}"}}'.encode()


def batch(writer: int, number: int, size_bytes: int) -> list[Row]:
    new = [(f"{writer}-{number:07}-{part}", body(writer, number, part, size_bytes)) for part in range(PARTS)]
    last = [(f"{writer}-last-{part}", b"%d" % number) for part in range(OVERWRITTEN)]
    return [(doc_id, stored, False, None) for doc_id, stored in new + last]


# -- the process that is killed ---------------------------------------------------------------------------------------


class Writer:
    """Writes batch after batch, and notes each once it is acknowledged."""

    def __init__(self, path: str, writer: int, first: int, setting: Setting) -> None:
        self.path, self.writer, self.setting = path, writer, setting
        self.numbers = itertools.count(first)
        self.acknowledgements = os.open(f"{path}.acks-{writer}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def run(self) -> None:
        while True:
            engine = SQLiteEngine(self.path, synchronous=self.setting.synchronous)  # type: ignore[arg-type]
            engine.create_collection(KV, {})
            if self.setting.way == "sync":
                for _ in range(REOPENED_AFTER):
                    number = next(self.numbers)
                    engine.write(KV, batch(self.writer, number, self.setting.size_bytes))
                    self.acknowledge(number)
            else:
                asyncio.run(self.run_tasks(engine))
            engine.close()

    async def run_tasks(self, engine: SQLiteEngine) -> None:
        async def write() -> None:
            for _ in range(REOPENED_AFTER // TASKS):
                number = next(self.numbers)
                await engine.bridge.write(engine.write, KV, batch(self.writer, number, self.setting.size_bytes))
                self.acknowledge(number)

        await asyncio.gather(*(write() for _ in range(TASKS)))

    def acknowledge(self, number: int) -> None:
        os.write(self.acknowledgements, struct.pack("<q", number))  # what is in the system's hands survives a kill


# -- the one that kills, and compares ---------------------------------------------------------------------------------


class Rig:
    """The file of one setting, and what was acknowledged on it."""

    def __init__(self, folder: Path, setting: Setting, dice: random.Random) -> None:
        self.folder, self.setting, self.dice = folder, setting, dice
        self.files = itertools.count()
        self.start_anew()

    def start_anew(self) -> None:
        self.path = str(self.folder / f"{next(self.files)}.db")
        self.acknowledged: set[tuple[int, int]] = set()
        self.first = 0

    def cycle(self) -> Tally:
        """Start writers, kill them, compare."""
        known = len(self.acknowledged)
        problems = self.write_and_kill()
        for writer in range(self.setting.writers):
            notes = Path(f"{self.path}.acks-{writer}")
            content = notes.read_bytes() if notes.exists() else b""
            self.acknowledged |= {(writer, number) for (number,) in struct.iter_unpack("<q", content)}
        tally = compare(self.path, self.setting, self.acknowledged)
        tally.cycles, tally.acknowledged = 1, len(self.acknowledged) - known
        tally.problems += problems
        self.first += 100_000  # numbers never come twice, whatever was in flight
        if os.path.exists(self.path) and os.path.getsize(self.path) > FILE_MAX_BYTES:
            for found in self.folder.glob(f"{Path(self.path).name}*"):
                found.unlink()
            self.start_anew()
        return tally

    def write_and_kill(self) -> list[str]:
        writers = [self.start(writer) for writer in range(self.setting.writers)]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()  # it is about to open the file
        self.dice.shuffle(writers)
        life_s = self.dice.uniform(0, LONGEST_LIFE_S)
        problems = []
        for writer in writers:
            time.sleep(life_s)  # the random moment itself: nothing waits for anything here
            if writer.poll() is not None:
                problems.append(f"a writer ended by itself: {writer.communicate()[1].strip()[-300:]}")
            os.kill(writer.pid, signal.SIGKILL)
            life_s = self.dice.uniform(0, 0.05)
        for writer in writers:
            writer.communicate()
        return problems

    def start(self, writer: int) -> subprocess.Popen[str]:
        arguments = [self.path, str(writer), str(self.first), *map(str, self.setting)]
        command = [sys.executable, __file__, "--writer", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def compare(path: str, setting: Setting, acknowledged: set[tuple[int, int]]) -> Tally:
    """Open the file as a user would, and compare all that it holds with what was acknowledged."""
    tally = Tally()
    if not os.path.exists(path):
        tally.lost = len(acknowledged)
        return tally
    engine = SQLiteEngine(path)
    found: dict[tuple[int, int], set[int]] = {}
    last: dict[int, set[int]] = {}
    try:
        for doc_id, stored in documents(engine):
            writer, number, part = doc_id.split("-")
            if number == "last":
                last.setdefault(int(writer), set()).add(int(stored))
            elif stored == body(int(writer), int(number), int(part), setting.size_bytes):
                found.setdefault((int(writer), int(number)), set()).add(int(part))
    except StoreError as error:
        tally.problems.append(f"the file was refused: {error}")
    finally:
        engine.close()
    whole = {which for which, parts in found.items() if parts == set(range(PARTS))}
    tally.compared = len(whole)
    tally.lost = len(acknowledged - whole)
    tally.torn = len(found) - len(whole)
    tally.in_flight_stored = len(whole - acknowledged)
    for writer in {writer for writer, _ in whole}:
        newest = max(number for who, number in whole if who == writer)
        tally.torn += last.get(writer) != {newest}
    tally.failed_checks = int(not is_sound(path))
    return tally


def is_sound(path: str) -> bool:
    with closing(sqlite3.connect(path)) as connection:
        try:
            return bool(connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok")
        except sqlite3.DatabaseError:
            return False


def documents(engine: SQLiteEngine) -> Iterator[tuple[str, bytes]]:
    after = None
    while True:
        try:
            page = engine.scan(KV, after=after, limit=500)
        except UnknownCollectionError:  # killed before it was made
            return
        for doc_id, stored, is_raw, expires_at_ms in page:
            assert isinstance(doc_id, str)
            assert (is_raw, expires_at_ms) == (False, None)
            yield doc_id, stored
        if len(page) < 500:
            return
        after = page[-1][0]


def run(cycles: int, seed: int) -> dict[Setting, Tally]:
    """Go through the settings in turn, each on a file of its own, for so many cycles altogether."""
    dice = random.Random(seed)
    order = dice.sample(SETTINGS, len(SETTINGS))
    tallies = {setting: Tally() for setting in SETTINGS}
    with tempfile.TemporaryDirectory() as folder:
        rigs = {}
        for position, setting in enumerate(order):
            place = Path(folder, str(position))
            place.mkdir()
            rigs[setting] = Rig(place, setting, dice)
        for _, setting in zip(range(cycles), itertools.cycle(order), strict=False):
            tallies[setting].add(rigs[setting].cycle())
    return tallies


def report(tallies: dict[Setting, Tally]) -> Tally:
    """Print a table in Markdown; return the sum."""
    total = Tally()
    print("| value | writers | calls | synchronous | kills | acknowledged | lost | torn | integrity_check failed |")
    print("|---|---|---|---|---|---|---|---|---|")
    for setting, tally in tallies.items():
        total.add(tally)
        if tally.cycles:
            _print_row([f"{setting.size_bytes:,} B", setting.writers, setting.way, setting.synchronous], tally)
    _print_row(["all", "", "", ""], total)
    print(f"\nof batches in flight {total.in_flight_stored:,} were stored, whole; {total.compared:,} comparisons")
    for problem in total.problems:
        print(f"problem: {problem}")
    return total


def _print_row(names: list[object], tally: Tally) -> None:
    counts = (tally.cycles, tally.acknowledged, tally.lost, tally.torn, tally.failed_checks)
    print("| " + " | ".join([*map(str, names), *(f"{count:,}" for count in counts)]) + " |", flush=True)


def main() -> int:
    if sys.argv[1:2] == ["--writer"]:
        path, writer, first, size, writers, way, synchronous = sys.argv[2:]
        print("ready", flush=True)
        Writer(path, int(writer), int(first), Setting(int(size), int(writers), way, synchronous)).run()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--cycles", type=int, default=200, help="how often writers are killed (default 200)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="repeats the moments, roughly")
    options = parser.parse_args()
    print(f"SQLite {sqlite3.sqlite_version}, {options.cycles} cycles, --seed {options.seed}\n", flush=True)
    return int(report(run(options.cycles, options.seed)).failures > 0)


if __name__ == "__main__":
    sys.exit(main())
