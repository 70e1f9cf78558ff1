"""Seeds drawn by nobody: what the client does in a network that loses, delays and repeats is always possible."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_kv.errors import PartialWriteError, StoreError
from simulation.history import History, Step
from simulation.model_server import DOCUMENT_FAULTS
from simulation.mutants import MUTANTS, mutated
from simulation.network import FAULTS
from simulation.tally import first_caught, simulate, simulate_embedded
from simulation.virtual_time import StandstillError, VirtualLoop
from simulation.world import accusation, judge, plan_of, run, shrunk

HISTORIES = 800
MUTANT_HISTORIES = 100


@pytest.mark.slow
def test_every_history_is_possible() -> None:
    tally = simulate(range(HISTORIES))

    assert tally.violations == [], accusation(tally.violations[0])
    # That it is said of something: each fault occurred, and calls ended in every way.
    assert tally.faults.keys() == {*FAULTS, *DOCUMENT_FAULTS, "moreData", "replace overtaken"}
    assert min(tally.fates[fate] for fate in ("written", "unwritten", "unknown")) > HISTORIES / 10
    assert tally.endings["ok"] > sum(tally.endings.values()) / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_client_with_a_mistake_is_caught(name: str) -> None:
    assert first_caught(name, range(MUTANT_HISTORIES)) is not None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_every_history_of_an_embedded_target_is_linearisable(kind: str) -> None:
    switching_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        tally = simulate_embedded(range(20), kind)
    finally:
        sys.setswitchinterval(switching_s)

    assert tally.violations == []
    assert tally.fates.keys() == {"written"}


def test_a_failing_seed_is_told_with_few_calls_and_how_to_replay_it() -> None:
    with mutated("leaves an existing key as it is"):
        seed = next(seed for seed in range(MUTANT_HISTORIES) if judge(plan_of(seed))[1])
        told = accusation(seed)
        few = shrunk(plan_of(seed))

        assert len(few.steps) <= 4 < len(plan_of(seed).steps)
        assert not any(
            judge(few._replace(steps=few.steps[:at] + few.steps[at + 1 :]))[1] for at in range(len(few.steps))
        )
    assert f"make simulate SEED={seed}" in told
    assert "fits no order of the calls" in told


@pytest.mark.slow
def test_a_seed_replays_exactly_in_any_process() -> None:
    seed = next(seed for seed in range(50) if len(run(plan_of(seed)).faults) > 5)
    here = [operation.told() for operation in run(plan_of(seed)).operations]

    assert [operation.told() for operation in run(plan_of(seed)).operations] == here
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "simulation", "--seed", str(seed)],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.splitlines()[: len(here)] == here, done.stderr


def test_virtual_seconds_pass_at_once_and_in_order() -> None:
    seen: list[tuple[str, float]] = []

    async def sleep(name: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        seen.append((name, asyncio.get_running_loop().time()))

    async def main() -> None:
        await asyncio.gather(sleep("late", 86_400.0), sleep("early", 0.5))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())

    assert seen == [("early", 0.5), ("late", 86_400.0)]


def test_a_wait_that_nothing_can_end_is_an_error() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(1.0, waiter.set_result, None)
        await waiter
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 5.0)
        raise StandstillError

    loop = VirtualLoop()
    waiter = loop.create_future()
    with asyncio.Runner(loop_factory=lambda: loop) as runner, pytest.raises(StandstillError):
        runner.run(main())
    with pytest.raises(StandstillError):
        loop.select(None)


def _ended(error: BaseException, keys: tuple[str, ...] = ("a", "b")) -> History:
    history = History(keys)
    history.fail(history.begin(Step(0, 0, "put", tuple((key, 1) for key in keys))), error)
    return history


@pytest.mark.parametrize(("applied", "fate"), [(True, "written"), (False, "unwritten"), (None, "unknown")])
def test_what_an_error_says_of_the_write_is_taken_at_its_word(applied: bool | None, fate: str) -> None:
    error = StoreError("failed")
    error.applied = applied

    assert _ended(error).operations[0].fates == {"a": fate, "b": fate}


def test_an_error_that_leaves_out_a_key_is_a_violation() -> None:
    assert _ended(PartialWriteError("some", written=("a",))).violations(may_repeat=True)
    assert not _ended(PartialWriteError("some", unwritten=("a",), unknown=("b",))).violations(may_repeat=True)


def test_an_effect_of_a_write_that_was_called_unwritten_is_a_violation() -> None:
    error = StoreError("failed")
    error.applied = False
    history = _ended(error, ("a",))
    assert not history.violations(may_repeat=True)

    history.operations[0].effects["a"] = [history.tick()]
    assert history.violations(may_repeat=True)
