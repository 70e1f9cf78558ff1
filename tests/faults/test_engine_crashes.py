"""A short run of the rig that kills writers, and that it would see a loss; ``make kill`` is the long run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bodies import row
from faults.engine_crashes import KV, SETTINGS, Setting, Tally, batch, compare, run
from langchain_kv.engines.sqlite.engine import SQLiteEngine

SMALL = Setting(1_000, 1, "sync", "full")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills with SIGKILL")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "kv.db")


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_that_was_acknowledged() -> None:
    seed = int.from_bytes(os.urandom(3))
    tallies = run(6, seed)
    total = Tally()
    for tally in tallies.values():
        total.add(tally)

    assert total.failures == 0, (seed, total)
    assert total.cycles == 6
    assert total.acknowledged > 0


def written(path: str, *numbers: int) -> SQLiteEngine:
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    for number in numbers:
        engine.write(KV, batch(0, number, SMALL.size_bytes))
    return engine


def test_the_rig_accepts_what_is_whole(path: str) -> None:
    written(path, 1, 2, 3).close()

    tally = compare(path, SMALL, {(0, 1), (0, 2)})
    assert (tally.compared, tally.in_flight_stored, tally.failures) == (3, 1, 0)


def test_the_rig_sees_a_lost_batch(path: str) -> None:
    written(path, 1, 3).close()

    assert compare(path, SMALL, {(0, 1), (0, 2), (0, 3)}).lost == 1
    assert compare(f"{path}.missing", SMALL, {(0, 1)}).lost == 1


def test_the_rig_sees_half_a_batch_and_a_changed_byte(path: str) -> None:
    engine = written(path, 1, 2, 3)
    engine.delete(KV, ["0-0000001-4"])
    (stored,) = engine.read(KV, ["0-0000002-7"])
    assert stored is not None
    engine.write(KV, [row("0-0000002-7", stored[1].replace(b"value", b"valuf"))])
    engine.close()

    tally = compare(path, SMALL, {(0, 1), (0, 2), (0, 3)})
    assert (tally.torn, tally.lost) == (2, 2)


def test_the_rig_sees_documents_that_were_overwritten_in_part(path: str) -> None:
    engine = written(path, 1, 2)
    engine.write(KV, [row("0-last-1", b"1")])
    engine.close()

    assert compare(path, SMALL, {(0, 1), (0, 2)}).torn == 1


def test_the_rig_sees_a_damaged_file(path: str) -> None:
    written(path, 1).close()
    content = bytearray(Path(path).read_bytes())
    content[3 * 8192 : 4 * 8192] = b"\xee" * 8192
    Path(path).write_bytes(content)

    assert compare(path, SMALL, {(0, 1)}).failures > 0


def test_the_settings_cross_sizes_writers_calls_and_synchronisation() -> None:
    assert len(SETTINGS) == len(set(SETTINGS)) == 16
