"""Three nodes with three replicas: one is killed, then a second, then both come back, all the while under work.

Each worker alone writes its keys, so it knows what each may hold: the last acknowledged value, or, after an error
whose ``applied`` is None, also the one that failed. Whatever else is read was lost, or written though it was denied.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from cassandra_node import missing
from cassandra_own_nodes import OwnNode, own_nodes
from installed import need
from langchain_kv import KVStore
from langchain_kv.errors import DataAPIError, PartialWriteError, StoreError

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(280)]

WORKERS = 4
KEYS_OF_EACH = 30
BATCH = 6
WITHIN_S = 90.0
"""Seconds that anything is waited for; the test takes what it takes, this is where it gives up."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[OwnNode]]:
    need(missing())
    with own_nodes(tmp_path_factory.mktemp("three"), 3) as running:
        yield running


class Worker:
    """Reads and writes keys of its own through a shared store, and knows what each of them may hold.

    Attributes:
        possible: what each key may hold; None stands for no value.
        counts: operations tried, acknowledged, failed, by ``(what, manner)``.
        wrong: what was found that cannot be.
        errors: what was raised, since ``errors`` was last emptied.
        acknowledged_at: when the last operation succeeded, on the monotonic clock.
        pause_max_s: the longest time between two operations that succeeded.
    """

    def __init__(self, store: KVStore, number: int) -> None:
        self.possible: dict[str, set[int | None]] = {f"w{number}-{at}": {None} for at in range(KEYS_OF_EACH)}
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.errors: list[StoreError] = []
        self.acknowledged_at = time.monotonic()
        self.pause_max_s = 0.0
        self._store = store
        self._random = random.Random(number)
        self._value = 0

    def work(self, until: threading.Event) -> None:
        while not until.is_set():
            keys = self._random.sample(list(self.possible), BATCH)
            operate = self._random.choice([self._get, self._put, self._put, self._delete])
            self.counts["tried"] += 1
            try:
                operate(keys)
            except StoreError as error:
                self.counts["failed"] += 1
                self.errors.append(error)
            else:
                now = time.monotonic()
                self.pause_max_s = max(self.pause_max_s, now - self.acknowledged_at)
                self.acknowledged_at = now
                self.counts["acknowledged"] += 1

    def _get(self, keys: list[str]) -> None:
        for key, value in zip(keys, self._store.mget(keys), strict=True):
            if value not in self.possible[key]:
                self.wrong.append(f"{key} holds {value}, possible are {self.possible[key]}")

    def _put(self, keys: list[str]) -> None:
        self._value += 1
        self._change(dict.fromkeys(keys, self._value), lambda: self._store.mset([(key, self._value) for key in keys]))

    def _delete(self, keys: list[str]) -> None:
        self._change(dict.fromkeys(keys), lambda: self._store.mdelete(keys))

    def _change(self, new: dict[str, int | None], send: Callable[[], None]) -> None:
        try:
            send()
        except PartialWriteError as error:
            self._note(new, error.written, error.unknown)
            if sorted([*error.written, *error.unwritten, *error.unknown]) != sorted(new):
                self.wrong.append(f"of {sorted(new)} the error names {error.written, error.unwritten, error.unknown}")
            raise
        except StoreError as error:
            self._note(new, (), () if error.applied is False else tuple(new))
            raise
        self._note(new, tuple(new), ())

    def _note(self, new: dict[str, int | None], written: tuple[str, ...], unknown: tuple[str, ...]) -> None:
        for key in written:
            self.possible[key] = {new[key]}
        for key in unknown:
            self.possible[key] = self.possible[key] | {new[key]}

    def check(self) -> None:
        """Compare every key."""
        for start in range(0, KEYS_OF_EACH, 10):
            self._get(list(self.possible)[start : start + 10])


class Crew:
    """Workers on threads."""

    def __init__(self, store: KVStore) -> None:
        self.workers = [Worker(store, number) for number in range(WORKERS)]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=worker.work, args=(self._stop,)) for worker in self.workers]

    def __enter__(self) -> Crew:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def total(self, what: str) -> int:
        return sum(worker.counts[what] for worker in self.workers)

    def new_phase(self) -> None:
        for worker in self.workers:
            worker.errors.clear()
            worker.pause_max_s = 0.0

    @property
    def errors(self) -> list[StoreError]:
        return [error for worker in self.workers for error in list(worker.errors)]

    def wait_for(self, what: str, is_there: Callable[[], bool]) -> float:
        """Return how many seconds it took."""
        started = time.monotonic()
        while not is_there():
            assert time.monotonic() - started < WITHIN_S, f"{what}: not in {WITHIN_S} s; {self.errors[-3:]!r}"
            time.sleep(0.02)
        return time.monotonic() - started

    def succeed_again(self, times: int) -> float:
        """Return the seconds until every worker has had so many successes from now on."""
        wanted = [(worker, worker.counts["acknowledged"] + times) for worker in self.workers]
        return self.wait_for(
            "work goes on", lambda: all(worker.counts["acknowledged"] >= count for worker, count in wanted)
        )


def causes(errors: list[StoreError]) -> list[StoreError]:
    """Return the errors of single statements."""
    return [
        cause
        for error in errors
        for cause in (error.errors.values() if isinstance(error, PartialWriteError) else [error])
    ]


def is_unavailable(error: StoreError) -> bool:
    return isinstance(error, DataAPIError) and error.code == "UNAVAILABLE_DATABASE"


def test_nodes_die_and_come_back_and_nothing_acknowledged_is_lost(
    nodes: list[OwnNode], capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = ",".join(node.host for node in nodes)
    url = f"cassandra://{hosts}:{nodes[0].port}/three?replication=3&request_timeout_s=8"
    told: list[str] = []
    before = Counter[str]()

    def tell(phase: str, seconds: str) -> None:
        now = Counter({what: crew.total(what) for what in ("tried", "acknowledged", "failed")})
        done = now - before
        unknown = sum(error.applied is None for error in causes(crew.errors))
        pause_s = max(worker.pause_max_s for worker in crew.workers)
        told.append(
            f"{phase}: {done['tried']} tried, {done['acknowledged']} acknowledged, {done['failed']} failed"
            f" ({unknown} statements unknown), longest pause {pause_s:.1f} s, {seconds}"
        )
        before.update(done)
        crew.new_phase()

    # A short patience, so that the outage of a quorum is told of, not waited for.
    with KVStore("kv", url, deadline_s=5) as store:
        store.mset([("first", 1)])
        with Crew(store) as crew:
            crew.succeed_again(20)
            tell("three nodes", "")

            nodes[2].kill()
            seconds = crew.succeed_again(1)
            crew.succeed_again(30)
            assert not [error for error in crew.errors if is_unavailable(error)]
            tell("one killed", f"every worker served again after {seconds:.1f} s")

            nodes[1].kill()
            seconds = crew.wait_for("unavailable", lambda: all(map(has_met_unavailable, crew.workers)))
            refused = [error for error in causes(crew.errors) if is_unavailable(error)]
            assert {(error.applied, error.retryable) for error in refused} == {(False, True)}
            tell("two killed", f"every worker told so after {seconds:.1f} s")

            started = time.monotonic()
            nodes[1].start()
            nodes[1].wait()
            ready_s = time.monotonic() - started
            seconds = crew.succeed_again(1)
            tell("one is back", f"listens after {ready_s:.1f} s, every worker served {seconds:.1f} s later")
            nodes[2].start()
            nodes[2].wait()
            crew.succeed_again(10)
            tell("both are back", "")
        for worker in crew.workers:
            worker.check()
        assert store.mget(["first"]) == [1]
    wrong = [text for worker in crew.workers for text in worker.wrong]
    total = {what: crew.total(what) for what in ("tried", "acknowledged", "failed")}
    with capsys.disabled():
        print("", *told, f"in all: {total}, lost or wrong {len(wrong)}", sep="\n")
    assert wrong == []


def has_met_unavailable(worker: Worker) -> bool:
    return any(is_unavailable(error) for error in causes(list(worker.errors)))


def test_a_worker_notices_a_write_that_was_acknowledged_and_lost() -> None:
    with KVStore("kv", f"memory:{__name__}") as store:
        worker = Worker(store, 0)
        keys = list(worker.possible)[:BATCH]
        worker._put(keys)
        worker.check()
        assert worker.wrong == []
        store.mdelete(keys[:1])
        worker.check()
        assert [text.split()[0] for text in worker.wrong] == keys[:1]


def test_a_worker_notices_a_write_that_happened_though_it_was_denied() -> None:
    class Denying:
        def mset(self, pairs: list[tuple[str, int]]) -> None:
            store.mset(pairs)
            raise PartialWriteError("some", written=tuple(keys[2:]), unwritten=(keys[0],), unknown=(keys[1],))

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

    with KVStore("kv", f"memory:{__name__}.denying") as store:
        worker = Worker(Denying(), 0)  # type: ignore[arg-type]
        keys = list(worker.possible)[:BATCH]
        with pytest.raises(PartialWriteError):
            worker._put(keys)
        worker.check()
        assert [text.split()[0] for text in worker.wrong] == keys[:1]
