"""Advice of what is asked over HTTP, followed; and where the advice that takes more is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from advice.world import Case, World
from langchain_kv import KVStore
from langchain_kv.backends.dataapi import client, proxies


@contextmanager
def another_service(reply: bytes) -> Iterator[str]:
    """A server that answers whatever it is asked by the same bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def asked_of_another_protocol(w: World) -> None:
    with another_service(b"220 ready\r\n") as url:
        w.http(url=url, deadline_s=0.1)


def asked_of_another_api(w: World) -> None:
    body = b'{"status":{"insertedIds":5}}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    with (
        another_service(head + body) as url,
        KVStore("kv", url, token="any", setup_mode="OFF", deadline_s=0.1) as store,
    ):
        store.mset([(f"k{number}", number) for number in range(8)])


def slow(w: World, request_timeout_s: float, deadline_s: float) -> None:
    w.server.fail(delay_s=0.3, command="findCollections", times=None)
    w.http(request_timeout_s=request_timeout_s, deadline_s=deadline_s)


def answered(w: World, status: int) -> None:
    w.server.fail(status=status, times=None)
    w.http(deadline_s=0.1)


def healed(w: World, message: str) -> None:
    w.server.heal()
    w.http()


def many_at_once(w: World, at_once: int) -> None:
    with KVStore("kv", w.server.url, token=w.server.token) as store:
        w.patch.setattr(client, "REPLY_MAX_BYTES", 1_000_000)
        keys = [f"k{number}" for number in range(100)]
        store.mset([(key, "x" * 1_000) for key in keys])
        w.patch.setattr(client, "REPLY_MAX_BYTES", 20_000)
        for start in range(0, len(keys), at_once):
            store.mget(keys[start : start + at_once])


def by_proxy(w: World, **variables: str) -> None:
    for name, value in variables.items():
        w.patch.setenv(name, value)
    proxies.proxy_for("http://h")


def never_accepted(w: World) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        for _ in range(4):  # what the kernel makes of a backlog of none
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        w.http(url=f"http://127.0.0.1:{server.getsockname()[1]}", request_timeout_s=0.4, deadline_s=0.1)


CASES = [
    Case("in time: check the network and the endpoint", never_accepted, lambda w, m: w.http()),
    Case(
        "raise request_timeout_s and deadline_s, or try later", lambda w: slow(w, 0.05, 0.1), lambda w, m: slow(w, 5, 5)
    ),
    Case("raise request_timeout_s and deadline_s, or try later", lambda w: slow(w, 5, 0.1), lambda w, m: slow(w, 5, 5)),
    Case("is not a URL that HTTP can use: write", lambda w: w.http(url="http://1.2.3.4.5"), lambda w, m: w.http()),
    Case("is not HTTP (", asked_of_another_protocol, lambda w, m: w.http()),
    Case("in reading it): check the endpoint", asked_of_another_api, lambda w, m: w.http()),
    Case("bytes: ask for fewer keys at once", lambda w: many_at_once(w, 100), lambda w, m: many_at_once(w, 10)),
    Case("broken or cut JSON, or another service's. Check the endpoint", lambda w: answered(w, 200), healed),
    Case("a gateway in front of it may take fewer: use smaller values", lambda w: answered(w, 413), healed),
    Case(
        "set it to http://HOST:PORT, or name",
        lambda w: by_proxy(w, ALL_PROXY="socks5://h:1"),
        lambda w, m: [by_proxy(w, ALL_PROXY="http://h:1"), by_proxy(w, ALL_PROXY="socks5://h:1", NO_PROXY="h")],
    ),
    # Not a message of one place: what the service's own errors are followed by.
    Case("Give a token (token=", lambda w: w.http(token=""), lambda w, m: w.http()),
    Case("Check the token (token=", lambda w: w.http(token="wrong"), lambda w, m: w.http()),
    Case(
        "Opening the store with SetupMode.SYNC creates it",
        lambda w: w.http(collection="new", setup_mode="OFF"),
        lambda w, m: w.http(collection="new", setup_mode="SYNC"),
    ),
]
