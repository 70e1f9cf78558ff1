"""What is said of each key after failures by CQL, on a driver that is none: it is never surer than what is known."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import cassandra
import pytest
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionShutdown
from cassandra.protocol import OverloadedErrorMessage, ServerError, SyntaxException

from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.cassandra import cluster as cassandra_cluster
from langchain_kv.engines.cassandra import connect as cassandra_connect
from langchain_kv.engines.cassandra import operation as cassandra_operation
from langchain_kv.engines.cassandra.engine import CassandraEngine
from langchain_kv.engines.cassandra.failures import translated
from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.errors import (
    ConnectError,
    DataAPIError,
    PartialWriteError,
    StoreError,
    TransportError,
    UnknownCollectionError,
)
from unit.fake_cassandra import KV, Clock, FakeCassandra, Fault, doc, value_of

LOST = ConnectionShutdown("the connection is gone")
NOBODY = NoHostAvailable("nobody is there", {})
CAS_TIMEOUT = cassandra.WriteTimeout("cas", write_type=cassandra.WriteType.CAS)
UNAVAILABLE = cassandra.Unavailable("few", consistency=6, required_replicas=2, alive_replicas=1)
REFUSED = cassandra.InvalidRequest("too large")
NO_TABLE = cassandra.InvalidRequest("table ks.kv does not exist")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cassandra_operation, "time", clock)
    monkeypatch.setattr(cassandra_operation, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": clock.asleep}))
    return clock


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeCassandra:
    driver = FakeCassandra()
    monkeypatch.setattr(cassandra_cluster, "connect", lambda settings: (driver, driver))
    return driver


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Do:
    """Calls an engine's operations in one mode."""

    def __init__(self, engine: CassandraEngine, mode: str) -> None:
        self.engine = engine
        self._mode = mode

    def __call__(self, operation: str, *arguments: Any) -> Any:
        if self._mode == "sync" or operation == "settings":
            return getattr(self.engine, operation)(KV, *arguments)
        return asyncio.run(getattr(self.engine, f"a{operation}")(KV, *arguments))


@pytest.fixture
def do(driver: FakeCassandra, clock: Clock, mode: str) -> Any:
    engine = CassandraEngine(ClusterSettings(("nowhere",), deadline_s=60.0))
    do = Do(engine, mode)
    do("write", [("first", doc("first"))])  # its statements are prepared from now on
    do("modify", ["first"], lambda doc_id, body: doc("first", 0))
    do("delete", ["first"])
    driver.sent.clear()
    driver.applied.clear()
    yield do
    engine.close()


class Outage:
    """From its beginning on, writes are lost on their way and nothing else reaches a node."""

    def __init__(self, driver: FakeCassandra, *, carried_out: bool) -> None:
        self._driver = driver
        self._when = "after" if carried_out else "before"

    def begin(self, on_way: int) -> None:
        left = [on_way]

        def decide(manner: str, key: str) -> Fault:
            if manner == "write" and left[0]:
                left[0] -= 1
                return self._when, LOST
            return "before", NOBODY

        self._driver.decide = decide
        self._driver.schema_fails = NOBODY

    def end(self) -> None:
        self._driver.decide = lambda manner, key: None
        self._driver.schema_fails = None


# -- an outage that stays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["write", "delete", "modify"])
def test_a_write_whose_answer_is_lost_with_every_connection_is_unknown(
    do: Any, driver: FakeCassandra, operation: str
) -> None:
    do("write", [("a", doc("a", 1))])
    Outage(driver, carried_out=True).begin(on_way=1)
    what = {"write": [("a", doc("a", 2))], "delete": ["a"], "modify": ["a"]}[operation]
    more = [lambda doc_id, body: doc("a", 2)] if operation == "modify" else []
    if operation == "modify":  # it reads first
        seen = driver.decide
        driver.decide = lambda manner, key: None if manner == "read" else seen(manner, key)
    with pytest.raises(TransportError) as caught:
        do(operation, what, *more)

    assert caught.value.applied is None
    assert value_of(driver, "a") == (None if operation == "delete" else 2)
    assert driver.sent["a"] == 2  # once before the outage, and once in it


def test_what_was_acknowledged_before_the_outage_stays_written(do: Any, driver: FakeCassandra) -> None:
    fates = {"good": None, "lost": ("before", LOST), "lost too": ("after", LOST), "late": ("before", NOBODY)}
    driver.decide = lambda manner, key: fates[key] if manner == "write" else ("before", NOBODY)
    with pytest.raises(PartialWriteError) as caught:
        do("write", [(key, doc(key)) for key in fates])

    assert caught.value.written == ("good",)
    assert caught.value.unknown == ("lost", "lost too")
    assert caught.value.unwritten == ("late",)


@pytest.mark.parametrize("operation", ["read", "write", "delete", "scan_ids", "count", "settings"])
def test_an_outage_is_waited_for_until_the_deadline(
    do: Any, driver: FakeCassandra, clock: Clock, operation: str
) -> None:
    Outage(driver, carried_out=False).begin(on_way=0)
    begun_s = clock.now_s
    with pytest.raises(ConnectError) as caught:
        {
            "read": lambda: do("read", ["a"]),
            "write": lambda: do("write", [("a", doc("a"))]),
            "delete": lambda: do("delete", ["a"]),
            "scan_ids": lambda: do.engine.scan_ids(KV, limit=10),
            "count": lambda: do("count"),
            "settings": lambda: do("settings"),
        }[operation]()
    assert caught.value.applied is False
    assert 58 < clock.now_s - begun_s < 60


def test_a_table_that_was_never_opened_is_waited_for_too(do: Any, driver: FakeCassandra, clock: Clock) -> None:
    do.engine._tables.clear()
    Outage(driver, carried_out=False).begin(on_way=0)
    ends_s = clock.now_s + 30

    def end() -> None:
        if clock.now_s > ends_s:
            driver.decide = lambda manner, key: None
            driver.schema_fails = None

    clock.on_wait = end
    do("write", [("a", doc("a"))])
    assert value_of(driver, "a") == 1


def test_closing_ends_the_waiting(do: Any, driver: FakeCassandra, clock: Clock) -> None:
    Outage(driver, carried_out=False).begin(on_way=0)
    begun_s = clock.now_s

    def close() -> None:
        do.engine._session.is_ending = True  # as close() does first, before it waits for what is under way

    clock.on_wait = close
    with pytest.raises(ConnectError):
        do("read", ["a"])
    assert clock.now_s - begun_s < 2


# -- an outage that passes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carried_out", [True, False])
@pytest.mark.parametrize("operation", ["write", "delete"])
def test_after_the_outage_what_was_on_its_way_is_asked_for_and_the_rest_is_sent(
    do: Any, driver: FakeCassandra, clock: Clock, operation: str, carried_out: bool
) -> None:
    keys = ["on its way", "not sent"]
    do("write", [(key, doc(key, 1)) for key in keys])
    driver.sent.clear()
    outage = Outage(driver, carried_out=carried_out)
    outage.begin(on_way=1)
    ends_s = clock.now_s + 20
    clock.on_wait = lambda: outage.end() if clock.now_s > ends_s else None

    def call() -> None:
        do(operation, [(key, doc(key, 2)) for key in keys] if operation == "write" else keys)

    after = 2 if operation == "write" else None
    if carried_out:
        call()
        assert [value_of(driver, key) for key in keys] == [after, after]
    else:
        with pytest.raises(PartialWriteError) as caught:
            call()
        assert (caught.value.written, caught.value.unknown) == (("not sent",), ("on its way",))
        assert [value_of(driver, key) for key in keys] == [1, after]
    assert driver.sent["on its way"] == 1


def test_each_success_begins_the_deadline_anew(do: Any, driver: FakeCassandra, clock: Clock) -> None:
    fails = iter([True, False] * 4)
    driver.decide = lambda manner, key: ("before", UNAVAILABLE) if next(fails, False) else None
    begun_s = clock.now_s
    clock.sleep = lambda delay_s: setattr(clock, "now_s", clock.now_s + 50)  # type: ignore[method-assign]
    do("write", [(f"k{number}", doc(f"k{number}")) for number in range(2)])
    assert clock.now_s - begun_s > 90


# -- what cannot be settled -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem", [REFUSED, NO_TABLE, cassandra.Unauthorized("no"), SyntaxException(0x2000, "x", None)]
)
def test_a_question_that_is_refused_leaves_a_write_unknown(do: Any, driver: FakeCassandra, problem: Any) -> None:
    driver.decide = lambda manner, key: ("after", CAS_TIMEOUT) if manner == "write" else ("before", problem)
    with pytest.raises(StoreError) as caught:
        do("write", [("a", doc("a"))])
    assert (type(caught.value), caught.value.applied) == (DataAPIError, None)
    assert driver.sent["a"] == 1


def test_a_table_that_is_dropped_half_way_takes_no_acknowledgement_back(do: Any, driver: FakeCassandra) -> None:
    fates: dict[str, Fault] = {"good": None, "lost": ("before", LOST), "late": ("before", NO_TABLE)}
    driver.decide = lambda manner, key: fates[key] if manner == "write" else ("before", NO_TABLE)
    with pytest.raises(PartialWriteError) as caught:
        do("write", [(key, doc(key)) for key in fates])
    error = caught.value
    assert (error.written, error.unknown, error.unwritten) == (("good",), ("lost",), ("late",))
    assert driver.sent == {"good": 1, "lost": 1, "late": 1}


def test_a_table_that_is_gone_is_one_error_for_a_batch_of_any_size(do: Any, driver: FakeCassandra) -> None:
    driver.decide = lambda manner, key: ("before", NO_TABLE)
    with pytest.raises(UnknownCollectionError) as caught:
        do("write", [(f"k{number}", doc(f"k{number}")) for number in range(300)])
    assert caught.value.applied is False


@pytest.mark.parametrize("problem", ["reading", "the change", "a bad row"])
def test_a_later_round_of_changes_that_fails_drops_nothing_of_the_first(
    do: Any, driver: FakeCassandra, problem: str
) -> None:
    do("write", [("first", doc("first", 1)), ("overtaken", doc("overtaken", 1))])
    rounds = [0]

    def decide(manner: str, key: str) -> Fault:
        rounds[0] += manner == "read"
        if manner == "read" and rounds[0] == 2 and problem == "reading":
            return "before", REFUSED
        if manner == "write" and key == "overtaken" and rounds[0] == 1:  # another writer comes in between
            text = "no document" if problem == "a bad row" else driver.rows[key][1]
            driver.rows[key] = ("another tx_id", text)
        return None

    def change(doc_id: Any, body: Any) -> Any:
        if rounds[0] == 2 and problem == "the change":
            raise RuntimeError("on purpose")
        return doc(doc_id, 2)

    driver.decide = decide
    with pytest.raises(PartialWriteError) as caught:
        do("modify", ["first", "overtaken"], change)
    assert caught.value.written == ("first",)
    assert caught.value.unwritten == ("overtaken",)
    assert value_of(driver, "first") == 2


def test_a_change_that_fails_before_anything_was_sent_is_passed_on(do: Any, driver: FakeCassandra) -> None:
    def change(doc_id: Any, body: Any) -> Any:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        do("modify", ["a", "b"], change)
    assert not driver.sent


# -- every combination, drawn -----------------------------------------------------------------------------------------

FAULTS: list[Fault] = [
    None,
    None,
    None,
    ("before", LOST),
    ("after", LOST),
    ("before", CAS_TIMEOUT),
    ("after", CAS_TIMEOUT),
    ("after", cassandra.OperationTimedOut()),
    ("before", NOBODY),
    ("before", UNAVAILABLE),
    ("before", REFUSED),
    ("after", ServerError(0, "hm", None)),
    ("before", OverloadedErrorMessage(0x1001, "busy", None)),
]
QUESTIONS: list[Fault] = [None, ("before", NOBODY), ("before", UNAVAILABLE), ("before", REFUSED), ("before", LOST)]


@pytest.mark.parametrize("operation", ["write", "delete", "modify"])
@pytest.mark.parametrize("seed", range(60))
def test_whatever_fails_what_is_said_of_each_key_is_true(
    do: Any, driver: FakeCassandra, operation: str, seed: int
) -> None:
    drawn = random.Random(seed)
    keys = [f"k{number}" for number in range(12)]
    do("write", [(key, doc(key, 1)) for key in keys])
    driver.applied.clear()
    fails_for = drawn.choice([3, 20, 10**6])  # answers until which there are faults

    def decide(manner: str, key: str) -> Fault:
        nonlocal fails_for
        if fails_for <= 0 or (manner == "read"):
            return None
        fails_for -= 1
        return drawn.choice(FAULTS if manner == "write" else QUESTIONS)

    driver.decide = decide
    call = {
        "write": lambda: do("write", [(key, doc(key, 2)) for key in keys]),
        "delete": lambda: do("delete", keys),
        "modify": lambda: do("modify", keys, lambda doc_id, body: doc(doc_id, 2)),
    }[operation]
    after = None if operation == "delete" else 2
    for key, written in said_of(keys, raised_by(call)).items():
        assert (value_of(driver, key) == after) is written, (key, written)
        assert driver.applied[key] == (1 if written else 0)


def raised_by(call: Any) -> StoreError | None:
    try:
        call()
    except StoreError as error:
        return error
    return None


def said_of(keys: list[str], error: StoreError | None) -> dict[str, bool]:
    """Return of which keys a call said that they were written, or were not."""
    if error is None:
        return dict.fromkeys(keys, True)
    if not isinstance(error, PartialWriteError):
        return {} if error.applied is None else dict.fromkeys(keys, False)
    assert sorted([*error.written, *error.unwritten, *error.unknown]) == sorted(keys)
    assert error.errors.keys() == {*error.unwritten, *error.unknown}
    assert all(error.errors[key].applied is False for key in error.unwritten)
    return {**dict.fromkeys(error.written, True), **dict.fromkeys(error.unwritten, False)}


# -- what an error means ----------------------------------------------------------------------------------------------


def test_a_condition_that_the_cluster_itself_does_not_know_of_is_unknown_and_passing() -> None:
    from cassandra.protocol import ErrorMessage

    error = translated(ErrorMessage(0x1700, "CAS result unknown", None), CollectionName("ks", "kv"), writes=True)
    assert isinstance(error, DataAPIError)
    assert (error.code, error.applied, error.retryable) == ("FAILED_COMPARE_AND_SET", None, True)


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (OverloadedErrorMessage(0x1001, "busy", None), True),
        (ServerError(0, "hm", None), True),
        (SyntaxException(0x2000, "x", None), False),
        (cassandra.AlreadyExists("ks", "kv"), False),
        (TypeError("a value does not fit"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, passing: bool) -> None:
    assert translated(error, CollectionName("ks", "kv"), writes=False).retryable is passing


# -- connecting -------------------------------------------------------------------------------------------------------

NOTHING_LISTENS = NoHostAvailable("none", {"one": ConnectionRefusedError(), "two": ConnectionRefusedError()})
WRONG_NAME = NoHostAvailable("none", {"one": OSError("name unknown")})


@pytest.mark.parametrize(
    ("error", "ends_after", "tries"),
    [(NOTHING_LISTENS, 3, 4), (NOTHING_LISTENS, 10**6, 20), (WRONG_NAME, 10**6, 1)],
    ids=["starts soon", "never starts", "wrong name"],
)
def test_nodes_that_do_not_listen_yet_are_waited_for_a_little(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, error: Exception, ends_after: int, tries: int
) -> None:
    tried: list[int] = []

    def connect(settings: ClusterSettings) -> tuple[str, str]:
        tried.append(1)
        if len(tried) <= ends_after:
            raise error
        return "cluster", "session"

    monkeypatch.setattr(cassandra_connect, "time", clock)
    monkeypatch.setattr(cassandra_connect, "_connect", connect)
    settings = ClusterSettings(("one", "two"), deadline_s=60.0)
    if ends_after < 10:
        assert cassandra_connect.connect(settings) == ("cluster", "session")
    else:
        with pytest.raises(ConnectError):
            cassandra_connect.connect(settings)
    assert len(tried) == tries
    assert clock.now_s - 1000 < 5
