"""A client's connection: answers in order, whatever way the bytes come in, and bounds for what a client may do."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from bodies import row
from langchain_kv.engines.base import CollectionName, Row
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.server.http.connections import Answer, HttpRequest
from langchain_kv.server.http.pool import Pool
from langchain_kv.server.http.running import run_app_in_thread, run_in_thread

TOKEN = "a token of the tests"
COLLECTION = CollectionName("default_keyspace", "kv")


class SlowEngine(MemoryEngine):
    """A memory engine whose reads of "slow" wait until they may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.may_go_on = threading.Event(), threading.Event()

    def read(self, collection: CollectionName, ids: Any) -> list[Row | None]:
        if "slow" in ids:
            self.reading.set()
            assert self.may_go_on.wait(30)
        return super().read(collection, ids)


@pytest.fixture
def engine() -> SlowEngine:
    engine = SlowEngine()
    engine.create_collection(COLLECTION, {"indexing": {"allow": ["_id"]}})
    rows = [row(f"k{n}", b'{"_id":"k%d","n":%d}' % (n, n)) for n in range(20)]
    engine.write(COLLECTION, rows)
    return engine


@pytest.fixture
def port(engine: MemoryEngine) -> Iterator[int]:
    with run_in_thread(engine, TOKEN) as url:
        yield int(url.rpartition(":")[2])


@pytest.fixture
def client(port: int) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as connection:
        yield connection


def post(command: Any, *headers: str, path: str = "/default_keyspace/kv", token: str = TOKEN) -> bytes:
    body = command if isinstance(command, bytes) else json.dumps(command).encode()
    lines = [f"POST /v1{path} HTTP/1.1", "Host: x", f"Token: {token}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def find_one(key: str, *headers: str) -> bytes:
    return post({"findOne": {"filter": {"_id": key}}}, *headers)


def answer(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Read one answer: its status, its headers, and its body, parsed where it is JSON."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(1)
        assert part, f"the connection ended after {data!r}"
        data += part
    first, *lines = data.decode().removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = b""
    while len(body) < int(headers["content-length"]):
        body += connection.recv(int(headers["content-length"]) - len(body))
    return int(first.split()[1]), headers, json.loads(body) if body[:1] == b"{" else body


def document(reply: tuple[int, dict[str, str], Any]) -> Any:
    assert reply[0] == 200
    return reply[2]["data"]["document"]


def test_a_command_that_comes_byte_by_byte_is_answered(client: socket.socket) -> None:
    for byte in find_one("k3"):
        client.sendall(bytes([byte]))
    assert document(answer(client)) == {"_id": "k3", "n": 3}


def test_commands_that_come_at_once_are_answered_in_their_order(client: socket.socket) -> None:
    client.sendall(b"".join(find_one(f"k{n}") for n in range(20)))
    assert [document(answer(client))["n"] for _ in range(20)] == list(range(20))


def test_requests_of_every_kind_may_follow_each_other_in_one_packet(client: socket.socket) -> None:
    health = b"GET /stargate/health HTTP/1.1\r\nHost: x\r\n\r\n"
    odd = find_one("k2", "Content-Type: application/json; charset=latin-9")
    client.sendall(find_one("k1") + health + odd + find_one("k4") + post(b"{") + find_one("k5"))
    assert document(answer(client))["n"] == 1
    assert answer(client)[2] == {"status": "UP", "checks": []}
    assert [document(answer(client))["n"] for _ in range(2)] == [2, 4]
    assert answer(client)[2]["errors"][0]["errorCode"] == "REQUEST_NOT_JSON"
    assert document(answer(client))["n"] == 5


def test_an_unauthorised_command_is_refused_and_the_next_one_answered(client: socket.socket) -> None:
    client.sendall(post({"find": {}}, token="wrong") + find_one("k1"))
    refused = answer(client)
    assert (refused[0], refused[2]["errors"][0]["errorCode"]) == (401, "UNAUTHENTICATED_REQUEST")
    assert document(answer(client))["n"] == 1


def test_a_token_is_checked_before_the_body_comes(client: socket.socket) -> None:
    client.sendall(post({"find": {}}, token="wrong")[:-1])
    assert answer(client)[0] == 401


def test_a_connection_that_the_client_ends_with_its_command_is_closed_after_the_answer(client: socket.socket) -> None:
    client.sendall(find_one("k1", "Connection: close"))
    reply = answer(client)
    assert document(reply)["n"] == 1
    assert reply[1]["connection"] == "close"
    assert client.recv(1) == b""


class Slow:
    """Answers a while later, and the loop goes on meanwhile."""

    def __init__(self) -> None:
        self.left: list[bool] = []

    def refuse(self, _: HttpRequest) -> Answer | None:
        return None

    async def answer(self, request: HttpRequest) -> Answer:
        leaving = asyncio.create_task(request.client_left())
        await asyncio.sleep(0.2)
        self.left.append(leaving.done())
        leaving.cancel()
        return Answer(200, b"late")


@pytest.mark.parametrize("count", [1, 2])
def test_a_client_that_sends_nothing_more_gets_its_answers(count: int) -> None:
    slow = Slow()
    with run_app_in_thread(slow) as url:
        with closing(socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * count)
            client.shutdown(socket.SHUT_WR)
            assert [answer(client)[2] for _ in range(count)] == [b"late"] * count
            assert client.recv(1) == b""
    assert slow.left[-1]


@pytest.mark.parametrize("whole", [b"", find_one("k1")], ids=["alone", "behind another"])
@pytest.mark.parametrize("part", [b"", b"POST", find_one("k2")[:-5]], ids=["nothing", "a head", "a body"])
def test_what_a_client_can_no_longer_complete_ends_the_connection(
    client: socket.socket, whole: bytes, part: bytes
) -> None:
    client.sendall(whole + part)
    client.shutdown(socket.SHUT_WR)
    if whole:
        assert document(answer(client))["n"] == 1
    assert client.recv(1) == b""


def test_a_client_that_left_keeps_no_connection_once_its_command_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    remove = Pool.remove
    monkeypatch.setattr(Pool, "remove", lambda *given: (remove(*given), counted.append(len(given[0]._members))))
    with run_app_in_thread(Slow()) as url:
        with closing(socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)) as leaver:
            leaver.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + 30
        while not counted:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert counted == [0]


def test_a_client_of_the_old_version_of_http_is_not_told_to_go_on(client: socket.socket) -> None:
    request = find_one("k1", "Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
    body = request.partition(b"\r\n\r\n")[2]
    client.sendall(request.removesuffix(body))
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(30)
    client.sendall(body)
    assert document(answer(client))["n"] == 1


def test_a_client_that_leaves_in_the_middle_of_a_body_disturbs_nobody(port: int, client: socket.socket) -> None:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as leaver:
        leaver.sendall(find_one("k1")[:-5])
    client.sendall(find_one("k2"))
    assert document(answer(client))["n"] == 2


def test_rubbish_behind_a_command_is_refused_and_ends_the_connection(client: socket.socket) -> None:
    client.sendall(find_one("k1") + b"\x00rubbish\r\n\r\n")
    received = b""
    while part := client.recv(65536):
        received += part
    assert received.count(b"HTTP/1.1 400") == 1
    assert received.count(b"HTTP/1.1") <= 2


def test_a_command_under_way_when_the_server_ends_is_answered(engine: SlowEngine) -> None:
    with run_in_thread(engine, TOKEN) as url:
        client = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)
        client.sendall(find_one("slow"))
        assert engine.reading.wait(30)
        threading.Thread(target=engine.may_go_on.set).start()
    with closing(client):
        reply = answer(client)
        assert document(reply) is None
        assert client.recv(1) == b""
