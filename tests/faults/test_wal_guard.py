"""Short runs of the hostile checkpointer; ``make wal-guard`` is the long run, with the contrast."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bodies import SQLiteEngine
from faults.wal_guard import KV, _count_lost, run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the rig ends its processes as POSIX does")


@pytest.mark.slow
def test_a_checkpointer_that_takes_the_lock_loses_no_row() -> None:
    result = run(4, locked=True)

    assert not result.failed, result
    assert result.acknowledged > 0
    assert result.checkpoints > 0


@pytest.mark.slow
def test_the_contrast_runs_without_the_lock() -> None:
    result = run(0.5, locked=False)

    assert result.acknowledged > 0  # whether it loses rows is a matter of chance and of SQLite's version


def test_the_rig_sees_a_missing_row_and_a_damaged_file(tmp_path: Path) -> None:
    path = str(tmp_path / "kv.db")
    engine = SQLiteEngine(path)
    engine.create_collection(KV, {})
    engine.write(KV, [(f"{number:04}", b"x" * 300) for number in range(1_000)])
    engine.close()
    assert _count_lost(path, ["0001", "0002"]) == (0, "")
    assert _count_lost(path, ["0001", "missing"]) == (1, "")

    content = bytearray(Path(path).read_bytes())
    content[8192 * 10 : 8192 * 20] = b"\xee" * 81920
    Path(path).write_bytes(content)
    assert _count_lost(path, ["0001"])[1]
