"""How often a call on PostgreSQL waits for the server: seen by who passes on what the two say to each other."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from langchain_kv import KVStore


class Relay:
    """Passes bytes on between clients and a server, and counts what clients sent.

    Attributes:
        port: where clients connect.
        sent: how many messages came from them: small ones, each of which waits for its answer.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self.port: int = self._listener.getsockname()[1]
        self.sent = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to_port))
                self._open += client, server
                threading.Thread(target=self._pass_on, args=(client, server, 1), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, 0), daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket, counted: int) -> None:
        with suppress(OSError):
            while part := source.recv(65_536):
                self.sent += counted
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


@pytest.fixture
def relay(postgresql: str) -> Iterator[Relay]:
    port = re.search(r":(\d+)/", postgresql)
    assert port is not None
    relay = Relay(int(port[1]))
    yield relay
    relay.close()


@pytest.fixture
def store(postgresql: str, relay: Relay) -> Iterator[KVStore]:
    with KVStore("round_trips", re.sub(r":\d+/", f":{relay.port}/", postgresql)) as store:
        store.mset([("a", 1), ("b", 2)])
        yield store
        store.clear()


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.mget(["a", "b"]),
        lambda store: store.mset([("a", 3)]),
        lambda store: store.mdelete(["a", "b"]),
    ],
    ids=["mget", "mset", "mdelete"],
)
def test_what_is_one_statement_waits_for_no_begin_and_no_commit(
    store: KVStore, relay: Relay, call: Callable[[KVStore], object]
) -> None:
    def sent(call: Callable[[KVStore], object]) -> int:
        for _ in range(2):  # a statement that is new is prepared first
            before = relay.sent
            call(store)
        return relay.sent - before

    in_a_transaction = sent(lambda store: store.mset([("a", 3), ("b", 3)]))
    assert sent(call) == in_a_transaction - 2


def test_a_connection_that_broke_between_calls_is_replaced_unseen(store: KVStore, relay: Relay) -> None:
    for call, expected in (
        (lambda: store.mget(["a", "b"]), [1, 2]),
        (lambda: store.mset([("a", 3)]), None),
        (lambda: store.mdelete(["b"]), None),
        (lambda: store.mget(["a", "b"]), [3, None]),
    ):
        relay.break_connections()
        assert call() == expected


def test_a_batch_is_stored_whole_or_not_at_all_also_after_single_ones(store: KVStore) -> None:
    store.mset([("a", 4)])
    assert store.mget(["a"]) == [4]
    with pytest.raises(ZeroDivisionError):
        store.update("a", lambda _: 1 // 0)
    store.update("a", lambda value: value + 1)
    assert store.mget(["a", "b"]) == [5, 2]
