"""How often a call waits for the server, and connections that break: seen by a relay between the two."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import pytest
from langgraph.store.base import PutOp

from langchain_kv import ConnectError, KVStore, LangGraphStore, TransportError


class Relay:
    """Passes bytes on between clients and a server, and counts what clients sent.

    Attributes:
        port: where clients connect.
        sent: how many messages came from them: small ones, each of which waits for its answer.
        swallowed: at which of these, counted by ``sent``, the connections break in the place of the answer.
        is_down: whether new connections are refused.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self.port: int = self._listener.getsockname()[1]
        self.sent = 0
        self.swallowed = -1
        self.is_down = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.is_down:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._to_port))
                self._open += client, server
                threading.Thread(target=self._pass_on, args=(client, server, 1), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, 0), daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket, counted: int) -> None:
        with suppress(OSError):
            while part := source.recv(65_536):
                self.sent += counted
                if not counted and self.sent == self.swallowed:
                    self.swallowed = -1
                    self.break_connections()
                    return
                to.sendall(part)
            to.shutdown(socket.SHUT_WR)

    def break_connections(self) -> None:
        """Break those that are open; later ones are served."""
        for connection in self._open[1:]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.break_connections()
        for connection in self._open:
            connection.close()


Relayed = tuple[KVStore, Relay]


@contextmanager
def _relayed(url: str) -> Iterator[Relayed]:
    """Yield a store that has two keys and reaches the server through a relay."""
    port = re.search(r":(\d+)/", url)
    assert port is not None
    with closing(Relay(int(port[1]))) as relay:
        with KVStore("round_trips", url.replace(port[0], f":{relay.port}/")) as store:
            store.mset([("a", 1), ("b", 2)])
            yield store, relay
            store.clear()


@pytest.fixture
def relayed(network: str) -> Iterator[Relayed]:
    with _relayed(network) as both:
        yield both


@pytest.fixture
def relayed_postgresql(postgresql: str) -> Iterator[Relayed]:
    with _relayed(postgresql) as both:
        yield both


@pytest.mark.parametrize(
    ("call", "messages"),
    [
        (lambda store: store.mget(["a"]), 1),
        (lambda store: store.mget(["a", "b"]), 1),
        (lambda store: store.mset([("a", 3)]), 1),
        (lambda store: store.mdelete(["a", "b"]), 1),
        (lambda store: store.count(), 1),
        (lambda store: store.clear(), 1),
        (lambda store: list(store.yield_keys()), 1),
        (lambda store: list(store.yield_items()), 2),  # which keys, so that a page has few bytes, and their rows
        (lambda store: store.mset([("a", 3), ("b", 3)]), 1),
        (lambda store: store.update("a", lambda value: value), 4),  # BEGIN, the two statements, COMMIT
    ],
)
def test_what_is_one_statement_waits_for_nothing_else(
    relayed_postgresql: Relayed, call: Callable[[KVStore], object], messages: int
) -> None:
    store, relay = relayed_postgresql
    sent = []
    for _ in range(8):  # a statement that was used five times is prepared by then
        store.mset([("a", 1)])
        before = relay.sent
        call(store)
        sent.append(relay.sent - before)
    assert sent[-1] == messages


@pytest.mark.parametrize(("count", "messages"), [(1, 1), (2, 3)])
def test_items_that_exist_are_stored_by_one_statement(
    relayed_postgresql: Relayed, postgresql: str, count: int, messages: int
) -> None:
    _, relay = relayed_postgresql
    with LangGraphStore(re.sub(r":\d+/", f":{relay.port}/", postgresql), collection="round_trips_again") as store:
        sent = []
        for _ in range(8):
            before = relay.sent
            store.batch([PutOp(("a",), f"{n}", {"n": n}) for n in range(count)])
            sent.append(relay.sent - before)
    assert sent[-1] == messages  # of more than one BEGIN and COMMIT, because some may be read after all


def test_a_connection_that_broke_between_calls_is_replaced_unseen(relayed: Relayed) -> None:
    store, relay = relayed
    for call, expected in (
        (lambda: store.mget(["a", "b"]), [1, 2]),
        (lambda: store.mset([("a", 3)]), None),
        (lambda: store.mdelete(["b"]), None),
        (lambda: store.mget(["a", "b"]), [3, None]),
    ):
        relay.break_connections()
        assert call() == expected


@pytest.fixture
def relayed_psycopg(servers: Callable[[str], str]) -> Iterator[Relayed]:
    with _relayed(servers("postgresql")) as both:
        yield both


@pytest.mark.slow
def test_all_that_rest_are_replaced_where_one_had_broken(relayed_psycopg: Relayed) -> None:
    store, relay = relayed_psycopg
    for by_threads in (False, True):
        together = threading.Barrier(4)

        def hold(value: object, together: threading.Barrier = together) -> object:
            together.wait(30)  # each has a connection then
            return value

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda key: store.update(key, hold), ["a", "b", "c", "d"]))
            relay.break_connections()
            mget = (threads.map if by_threads else map)(lambda key: store.mget([key]), "abcdabcd")
            assert [*mget][:2] == [[1], [2]]
    relay.break_connections()
    assert store.update("a", lambda value: value + 1) == 2


@pytest.mark.slow
def test_many_that_break_at_once_are_replaced_unseen(relayed_psycopg: Relayed) -> None:
    store, relay = relayed_psycopg
    together = threading.Barrier(8)

    def work(number: int) -> None:
        for turn in range(15):
            store.mget(["a"])
            if together.wait(60) == 0:
                relay.break_connections()
            together.wait(60)
            if (number + turn) % 4:
                assert store.mget(["a"]) == [1]
            else:
                store.update(f"c{number}", lambda value: (value or 0) + 1)
            together.wait(60)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert sum(value for value in store.mget([f"c{number}" for number in range(8)]) if value) == 30


def test_a_batch_and_an_update_are_begun_anew_on_a_new_connection(relayed: Relayed) -> None:
    store, relay = relayed
    for call in (
        lambda: store.mset([("a", 5), ("b", 5)]),
        lambda: store.update("a", lambda value: value + 1),
        lambda: store.add([("c", 1)]),
        lambda: list(store.yield_items()),
    ):
        relay.break_connections()
        call()
    assert store.mget(["a", "b", "c"]) == [6, 5, 1]


def _cut(relay: Relay, last: int) -> None:
    """Have connections break in the place of the answer to the so-manieth message from now."""
    relay.swallowed = relay.sent + last


def test_an_update_whose_commit_was_not_answered_is_not_repeated(relayed_postgresql: Relayed) -> None:
    store, relay = relayed_postgresql
    for _ in range(8):
        store.update("a", lambda value: value + 1)
    _cut(relay, 4)
    with pytest.raises(TransportError, match="read the key before you repeat it") as caught:
        store.update("a", lambda value: value + 1)
    assert (caught.value.applied, caught.value.retryable) == (None, False)
    assert store.mget(["a"]) == [10]


def test_a_write_that_was_not_answered_is_repeated_once(relayed_postgresql: Relayed) -> None:
    store, relay = relayed_postgresql
    for _ in range(8):
        store.mset([("a", 0)])
    _cut(relay, 1)
    store.mset([("a", 7)])
    assert store.mget(["a"]) == [7]


def test_what_a_write_may_have_done_stays_unknown_where_no_connection_follows(
    relayed_postgresql: Relayed,
) -> None:
    store, relay = relayed_postgresql
    for _ in range(8):
        store.mset([("a", 0)])
        store.mget(["a"])
    _cut(relay, 1)
    relay.is_down = True
    with pytest.raises(TransportError, match="Repeating the call is safe") as caught:
        store.mset([("a", 7)])
    assert (caught.value.applied, caught.value.retryable) == (None, True)
    relay.is_down = False
    assert store.mget(["a"]) == [7]
    relay.break_connections()
    relay.is_down = True
    with pytest.raises(ConnectError) as read:
        store.mget(["a"])
    assert read.value.applied is False
    relay.is_down = False


def test_a_batch_is_stored_whole_or_not_at_all_also_after_single_ones(
    relayed_postgresql: Relayed,
) -> None:
    store, _ = relayed_postgresql
    store.mset([("a", 4)])
    assert store.mget(["a"]) == [4]
    with pytest.raises(ZeroDivisionError):
        store.update("a", lambda _: 1 // 0)
    store.update("a", lambda value: value + 1)
    assert store.mget(["a", "b"]) == [5, 2]
