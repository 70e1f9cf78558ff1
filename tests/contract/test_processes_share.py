"""Expiry, update and add on one file, and on one ``lckv serve``, by many processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.serving import served
from langchain_kv.runtime import clock
from together import SharedClock, Where, adding_at_once, expiry_by_eight_processes, updates_by_sixteen_threads


@pytest.fixture
def file(tmp_path: Path) -> Where:
    return {"collection": "kv", "url": f"sqlite:{tmp_path}/kv.db"}


@pytest.fixture(params=["a file", "lckv serve"])
def where(request: pytest.FixtureRequest, file: Where) -> Iterator[Where]:
    if request.param == "a file":
        yield file
        return
    with served(file["url"]) as server:
        yield {"collection": "kv", "url": server.url, "token": server.token}


@pytest.mark.slow
def test_what_has_expired_is_served_and_listed_by_none_of_eight_processes(
    where: Where, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = SharedClock(tmp_path / "clock")
    monkeypatch.setattr(clock, "_now_ns", times.now_ns)
    expiry_by_eight_processes(where, times)


@pytest.mark.slow
def test_no_increment_of_sixteen_threads_in_two_processes_is_lost(file: Where) -> None:
    updates_by_sixteen_threads({**file, "url": f"{file['url']}?synchronous=normal"}, times=400)


def test_of_four_processes_that_add_the_same_keys_each_key_has_one_winner(file: Where) -> None:
    adding_at_once(file, by=4)


@pytest.mark.slow
def test_of_sixteen_processes_that_add_the_same_keys_each_key_has_one_winner(where: Where) -> None:
    adding_at_once(where, by=16)
