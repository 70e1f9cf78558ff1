"""What a client may send, hold up or leave unread: lengths, heads, slow bodies, idle connections, and how many."""

from __future__ import annotations

import asyncio
import json
import re
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.limits import BODY_MAX_BYTES
from langchain_kv.server.http import connections, pool, running
from langchain_kv.server.http.connections import HEAD_MAX_BYTES, Answer, Connection, HttpRequest
from langchain_kv.server.http.running import run_app_in_thread, run_in_thread

TOKEN = "token"
HEAD = b"POST /v1/default_keyspace HTTP/1.1\r\nHost: x\r\nToken: token\r\n"
COMMAND = b'{"findCollections":{}}'
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(COMMAND) + COMMAND
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FOR_EVER_S = 1e9
SOON_S = 0.05


@pytest.fixture
def url() -> Iterator[str]:
    with run_in_thread(MemoryEngine(), TOKEN) as url:
        yield url


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client


def received(client: socket.socket) -> bytes:
    """Return all that comes until the connection ends."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def statuses(data: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", data)]


def first_status(client: socket.socket) -> int:
    data = b""
    while b"\r\n" not in data:
        part = client.recv(1)
        assert part, "the connection ended without an answer"
        data += part
    return int(data.split()[1])


def rest_of_answer(client: socket.socket) -> bytes:
    """Return the body of an answer of which the first line was read."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(1)
    size = int(re.findall(rb"content-length: (\d+)", data)[0])
    return client.recv(size, socket.MSG_WAITALL) if size else b""


# -- lengths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [0, 1, 9, 25, 5000])
@pytest.mark.parametrize("excess", [1, 10 * 2**20, 10**15])
def test_a_length_over_the_limit_is_refused_however_it_is_written(url: str, zeros: int, excess: int) -> None:
    with connected(url) as client:
        client.sendall(HEAD + b"Content-Length: %b%d\r\n\r\n" % (b"0" * zeros, BODY_MAX_BYTES + excess))
        assert first_status(client) == 413


@pytest.mark.parametrize("zeros", [1, 9, 25, 5000])
def test_zeros_before_a_good_length_do_no_harm(url: str, zeros: int) -> None:
    with connected(url) as client:
        client.sendall(HEAD + b"Content-Length: %b%d\r\n\r\n" % (b"0" * zeros, len(COMMAND)) + COMMAND)
        assert first_status(client) == 200


@pytest.mark.parametrize(
    "length",
    [
        b"",
        b"+22",
        b"-22",
        b"0x16",
        b"22 22",
        b"22,22",
        b"2 2",
        b"22;",
        b"22\x0b",
        b"\xb2\xb2",
        b"1e1",
        b"22.0",
        b"9" * 30,
    ],
)
def test_a_length_that_is_none_is_refused_and_ends_the_connection(url: str, length: bytes) -> None:
    with connected(url) as client:
        client.sendall(HEAD + b"Content-Length: %b\r\n\r\n" % length + COMMAND)
        assert statuses(received(client)) == [400]


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 0\r\n\r\n", b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
)
def test_a_request_without_a_body_is_answered_and_the_next_one(url: str, framing: bytes) -> None:
    with connected(url) as client:
        client.sendall(HEAD + framing + WHOLE)
        assert first_status(client) == 200
        assert json.loads(rest_of_answer(client))["errors"][0]["errorCode"] == "COMMAND_FIELD_VALUE_INVALID"
        assert first_status(client) == 200


@pytest.mark.slow
def test_chunks_over_the_limit_are_refused_and_their_rest_is_thrown_away(url: str) -> None:
    chunk = b"100000\r\n%b\r\n" % bytes(2**20)
    with connected(url) as client:
        client.sendall(CHUNKED + chunk * 21)
        assert first_status(client) == 413
        rest_of_answer(client)
        client.sendall(chunk * 21 + b"0\r\n\r\n" + WHOLE)
        assert first_status(client) == 200


@pytest.mark.parametrize(
    "flood",
    [b"1;name=%b", b"1;%b=b", b"0\r\nX: %b", b"0\r\n" + b"X: y\r\n" * 20_000 + b"%b", b"000%b"],
    ids=["an extension of a chunk", "its name", "a trailer", "trailers", "zeros of a size"],
)
def test_what_a_body_in_chunks_has_beside_itself_is_bounded(url: str, flood: bytes) -> None:
    with connected(url) as client:
        filler = b"0" * (5 * HEAD_MAX_BYTES) if flood.startswith(b"000") else b"a" * (5 * HEAD_MAX_BYTES)
        try:
            client.sendall(CHUNKED)
            client.sendall(flood % filler)
        except ConnectionError:
            pass
        assert statuses(received(client)) in ([400], [])  # [] where its answer was lost in the reset


@pytest.mark.parametrize(("size", "status"), [(HEAD_MAX_BYTES - 1000, 200), (HEAD_MAX_BYTES + 1, 400)])
@pytest.mark.parametrize("kind", ["a header", "headers", "the path"])
def test_a_head_has_at_most_64_kib(url: str, size: int, status: int, kind: str) -> None:
    more = {"a header": b"X: " + b"a" * size + b"\r\n", "headers": b"X: 45678\r\n" * (size // 10 + 10), "the path": b""}
    target = b"/v1?" + b"a" * size if kind == "the path" else b"/v1"
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nToken: token\r\n%bConnection: close\r\n\r\n" % (target, more[kind])
    if kind == "headers" and status == 200:
        head = head.replace(b"X: 45678\r\n" * 11, b"", 1)
    with connected(url) as client:
        client.sendall(head)
        assert statuses(received(client)) == [status]


# -- many requests in one packet --------------------------------------------------------------------------------------

OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [(WHOLE, 200), (WHOLE.replace(b"Token: token", b"Token: wrong"), 401), (WHOLE.replace(b"\r\n\r\n", b"\r\n" + OFFER +
     b"\r\n"), 200), (b"GET / HTTP/1.1\r\n\r\n", 200), (b"GET /nowhere HTTP/1.1\r\n\r\n", 404)],
    ids=["commands", "refused", "with an offer", "pages", "unknown"],
)  # fmt: skip
def test_any_number_of_requests_may_come_at_once(url: str, request_: bytes, status: int) -> None:
    last = WHOLE.replace(b"Host", b"Connection: close\r\nHost")
    with connected(url) as client:
        sender = threading.Thread(target=client.sendall, args=(request_ * 3000 + last,))
        sender.start()
        answers = received(client)
        sender.join()
    assert statuses(answers) == [status] * 3000 + [200]


class Recorded:
    """An application that says which requests it was asked, and a transport that says what became of them."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.written = b""
        self.is_aborted = self.is_reading_paused = False

    def refuse(self, request: HttpRequest) -> Answer | None:
        return None

    async def answer(self, request: HttpRequest) -> Answer:
        self.asked.append(request.body)
        return Answer(200)

    def write(self, data: bytes) -> None:
        self.written += data

    def write_eof(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    close = abort

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False


def opened() -> tuple[Recorded, Connection]:
    recorded = Recorded()
    connection = Connection(pool.Pool(10), recorded)
    connection.connection_made(recorded)  # type: ignore[arg-type]
    return recorded, connection


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_while_answers_are_not_read_no_request_is_carried_out() -> None:
    recorded, connection = opened()
    connection.data_received(WHOLE)
    connection.pause_writing()
    connection.data_received(WHOLE + WHOLE)
    await turns()
    assert len(recorded.asked) == 1

    connection.resume_writing()
    await turns()
    assert len(recorded.asked) == 3
    assert statuses(recorded.written) == [200, 200, 200]


async def test_while_a_request_waits_for_another_one_no_more_is_read() -> None:
    recorded, connection = opened()
    connection.data_received(WHOLE)
    assert not recorded.is_reading_paused
    connection.data_received(WHOLE)
    assert recorded.is_reading_paused
    await turns()
    assert not recorded.is_reading_paused


async def test_a_body_that_keeps_the_slowest_pace_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _, connection = opened()
    now_s = asyncio.get_running_loop().time()
    connection.data_received(HEAD + b"Content-Length: 1000000\r\n\r\n")
    for part in range(1, 11):
        connection.data_received(bytes(connections.SLOW_BYTES_S))
        assert connection.deadline_s == pytest.approx(now_s + connections.SLOW_S + part, abs=5)


async def test_a_large_answer_is_given_the_time_that_the_slowest_client_takes() -> None:
    recorded, connection = opened()
    size = 100 * connections.SLOW_BYTES_S

    async def answer(request: HttpRequest) -> Answer:
        return Answer(200, bytes(size))

    recorded.answer = answer  # type: ignore[method-assign]
    recorded.writelines = lambda parts: None  # type: ignore[attr-defined]
    connection.data_received(WHOLE)
    await turns()
    assert connection.deadline_s == pytest.approx(asyncio.get_running_loop().time() + connections.IDLE_S + 100, abs=5)


async def test_a_command_under_way_has_no_end_of_its_own() -> None:
    recorded, connection = opened()

    async def answer(request: HttpRequest) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    recorded.answer = answer  # type: ignore[method-assign]
    connection.data_received(WHOLE)
    await turns()
    assert connection.deadline_s > asyncio.get_running_loop().time() + FOR_EVER_S


# -- clients that take their time -------------------------------------------------------------------------------------


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets how long a server that is started afterwards waits for what; for all else it waits for ever."""

    def set_patience(**seconds: float) -> None:
        for name in ("HEAD_S", "SLOW_S", "IDLE_S", "LINGER_S"):
            monkeypatch.setattr(connections, name, seconds.get(name, FOR_EVER_S))
        monkeypatch.setattr(connections, "SLOW_BYTES_S", FOR_EVER_S)
        monkeypatch.setattr(pool, "SWEEP_S", 0.01)

    return set_patience


def drip(client: socket.socket, data: bytes) -> bytes:
    """Send data byte by byte, the last one for ever, until the connection ends; return what was answered."""
    answered = b""
    try:
        for position in range(10**6):
            client.sendall(data[position : position + 1] or data[-1:])
            if select.select([client], [], [], 0.001)[0]:
                part = client.recv(65536)
                if not part:
                    break
                answered += part
    except ConnectionError:
        pass
    return answered


HELD_UP: dict[str, tuple[str, bytes, list[int]]] = {
    "nothing is sent": ("HEAD_S", b"", []),
    "a part of a first line": ("HEAD_S", b"POST /v1", []),
    "a part of a header": ("HEAD_S", HEAD[:-5], []),
    "all but the last byte of a head": ("HEAD_S", HEAD + b"\r", []),
    "line ends": ("HEAD_S", b"\r\n\r\n", []),
    "no body": ("SLOW_S", HEAD + b"Content-Length: 100\r\n\r\n", [408]),
    "a part of a body": ("SLOW_S", HEAD + b"Content-Length: 100\r\n\r\n{", [408]),
    "no chunk": ("SLOW_S", CHUNKED, [408]),
    "a part of a chunk": ("SLOW_S", CHUNKED + b"5\r\nab", [408]),
    "all but the last chunk": ("SLOW_S", CHUNKED + b"5\r\nabcde\r\n", [408]),
    "no body after a word": ("SLOW_S", HEAD + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n", [100, 408]),
    "no second request": ("IDLE_S", WHOLE, [200]),
    "no body of a request without a token": ("LINGER_S", b"POST /v1 HTTP/1.1\r\nContent-Length: 9\r\n\r\n", [401]),
    "no body that is too large": ("LINGER_S", HEAD + b"Content-Length: 30000000\r\n\r\n", [413]),
}


@pytest.mark.parametrize("kind", HELD_UP)
def test_a_client_that_holds_up_a_connection_is_cut_off(kind: str, patience: Callable[..., None]) -> None:
    name, sent, answered = HELD_UP[kind]
    patience(**{name: SOON_S, "LINGER_S": SOON_S})  # LINGER_S ends a connection after a 408
    with run_in_thread(MemoryEngine(), TOKEN) as url, connected(url) as client:
        client.sendall(sent)
        assert statuses(received(client)) == answered


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("HEAD_S", b"POST /v1 HTTP/1.1\r\nX: aaaa"),
        ("HEAD_S", b"\r\n"),
        ("SLOW_S", HEAD + b"Content-Length: 900000\r\n\r\n{"),
        ("SLOW_S", CHUNKED + b"5;ext=aaaa"),
        ("LINGER_S", b"POST /v1 HTTP/1.1\r\nContent-Length: 900000\r\n\r\n{"),
    ],
)
def test_a_client_that_sends_a_byte_now_and_then_is_cut_off_as_well(
    name: str, sent: bytes, patience: Callable[..., None]
) -> None:
    patience(**{name: SOON_S, "LINGER_S": SOON_S})
    with run_in_thread(MemoryEngine(), TOKEN) as url, connected(url) as client:
        assert statuses(drip(client, sent)) in ([], [401], [408])
        assert received(client) == b""


def test_a_second_request_that_does_not_become_complete_is_cut_off(patience: Callable[..., None]) -> None:
    patience()
    with run_in_thread(MemoryEngine(), TOKEN) as url, connected(url) as client:
        assert is_open(client)
        patience(HEAD_S=SOON_S)
        client.sendall(HEAD)
        assert received(client) == b""


async def test_a_part_of_a_head_behind_a_request_is_not_given_the_time_of_an_idle_connection() -> None:
    _, connection = opened()
    connection.data_received(WHOLE + HEAD)
    await turns()
    assert connection.deadline_s == pytest.approx(asyncio.get_running_loop().time() + connections.HEAD_S, abs=5)


class Large(Recorded):
    """Answers with much."""

    def __init__(self) -> None:
        super().__init__()
        self.has_ended = threading.Event()

    async def answer(self, request: HttpRequest) -> Answer:
        self._waiting = asyncio.create_task(self._wait(request))
        return Answer(200, bytes(2**25))

    async def _wait(self, request: HttpRequest) -> None:
        await request.client_left()
        self.has_ended.set()


def test_a_client_that_does_not_read_its_answer_is_cut_off(patience: Callable[..., None]) -> None:
    patience(IDLE_S=SOON_S)
    large = Large()
    with run_app_in_thread(large) as url, connected(url) as client:
        client.sendall(WHOLE)
        assert large.has_ended.wait(30)
        assert len(received(client)) < 2**25


# -- how many ---------------------------------------------------------------------------------------------------------


def has_ended(client: socket.socket) -> bool:
    """Whether the connection ends, within a moment that is long for a machine under load."""
    return bool(select.select([client], [], [], 30)[0]) and received(client) == b""


def is_open(client: socket.socket) -> bool:
    client.sendall(WHOLE)
    return first_status(client) == 200 and bool(rest_of_answer(client))


def test_a_connection_too_many_takes_the_place_of_the_one_idle_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_most_connections", lambda: 3)
    with run_in_thread(MemoryEngine(), TOKEN) as url, connected(url) as first, connected(url) as second:
        assert is_open(first)
        assert is_open(second)
        with connected(url) as third:
            assert is_open(third)
            assert is_open(first)  # so that the second one is idle for longest
            with connected(url) as fourth:
                assert is_open(fourth)
                assert has_ended(second)
                assert is_open(first)
                assert is_open(third)


def test_connections_that_never_send_anything_shut_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_most_connections", lambda: 5)
    with run_in_thread(MemoryEngine(), TOKEN) as url:
        held = [socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30) for _ in range(50)]
        with connected(url) as client:
            assert is_open(client)
        for each in held:
            each.close()


class Waiting(Recorded):
    """Answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.may_go_on = threading.Semaphore(0), threading.Event()

    async def answer(self, request: HttpRequest) -> Answer:
        self.started.release()
        while not self.may_go_on.is_set():
            await asyncio.sleep(0.001)
        return Answer(200, b"{}")


def test_a_request_under_way_is_never_given_up_for_another_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_most_connections", lambda: 2)
    waiting = Waiting()
    with run_app_in_thread(waiting) as url, connected(url) as one, connected(url) as two:
        for client in (one, two):
            client.sendall(WHOLE)
            assert waiting.started.acquire(timeout=30)
        with connected(url) as third:
            assert has_ended(third)
        waiting.may_go_on.set()
        assert first_status(one) == first_status(two) == 200


def test_there_are_fewer_connections_than_files_that_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    for limit, most in ((1024, 768), (256, 192), (10**6, 10_000), (resource.RLIM_INFINITY, 10_000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert running._most_connections() == most


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", HEAD, b"POST /v1 HTTP/1.1\r\nContent-Length: 9\r\n\r\n", WHOLE], ids=range(4))
def test_a_server_that_ends_does_not_wait_for_a_client_that_asks_nothing(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(running, "SHUTDOWN_S", FOR_EVER_S)
    with run_in_thread(MemoryEngine(), TOKEN) as url:
        client = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)
        client.sendall(sent)
        if b"\r\n\r\n" in sent:
            first_status(client)
    with closing(client):
        received(client)


@pytest.mark.parametrize("sent", [WHOLE, HEAD + b"Content-Length: 9\r\n\r\n", WHOLE + WHOLE], ids=range(3))
def test_a_server_that_ends_waits_no_longer_than_it_says(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(running, "SHUTDOWN_S", SOON_S)
    waiting = Waiting()
    with run_app_in_thread(waiting) as url:
        client = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)
        client.sendall(sent)
        if sent.endswith(COMMAND):
            assert waiting.started.acquire(timeout=30)
    with closing(client):
        assert received(client) == b""


def test_a_server_that_ends_waits_for_a_client_that_leaves_its_answer_unread_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "SHUTDOWN_S", SOON_S)
    with run_app_in_thread(Large()) as url:
        client = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)
        client.sendall(WHOLE)
        first_status(client)
    client.close()


def test_a_body_that_comes_while_the_server_ends_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SHUTDOWN_S", FOR_EVER_S)
    serving = run_in_thread(MemoryEngine(), TOKEN)
    url = serving.__enter__()
    with connected(url) as busy, connected(url) as idle:
        assert is_open(idle)
        busy.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(COMMAND))
        assert first_status(busy) == 100
        ending = threading.Thread(target=serving.__exit__, args=(None, None, None))
        ending.start()
        assert received(idle) == b""  # the server is about to end
        busy.sendall(COMMAND)
        answers = received(busy)
        ending.join()
    assert statuses(answers) == [200]
    assert b"connection: close" in answers


def statuses_of(url: str, data: bytes) -> list[int]:
    with connected(url) as client:
        client.sendall(data)
        return statuses(received(client))


def test_a_client_that_was_refused_before_it_sent_its_body_is_hung_up_on(url: str) -> None:
    """Nobody can tell whether the body comes, so that what comes next has no meaning."""
    refused = b"POST /v1 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    assert statuses_of(url, refused + WHOLE) == [401]


def test_the_old_version_of_http_is_answered_and_ended(url: str) -> None:
    assert statuses_of(url, WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0")) == [200]


def test_a_head_request_is_answered_without_a_body(url: str) -> None:
    with connected(url) as client:
        client.sendall(b"HEAD /stargate/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = received(client).partition(b"\r\n\r\n")
    assert b"content-length: 27" in head.lower()
    assert body == b""


def test_rubbish_within_a_body_ends_the_connection_at_once(url: str) -> None:
    with connected(url) as client:
        client.sendall(CHUNKED + b"5\r\nabcde\r\n")
        client.sendall(b"zz\r\n")
        assert statuses(received(client)) == [400]


def application_of(answer: Any) -> Any:
    application = Recorded()
    application.answer = answer  # type: ignore[method-assign]
    return application


def test_a_request_that_fails_is_answered_and_ends_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: HttpRequest) -> Answer:
        if b"fail" in request.body:
            raise ZeroDivisionError
        return Answer(200, b"{}")

    with run_app_in_thread(application_of(answer)) as url, connected(url) as client:
        client.sendall(HEAD + b"Content-Length: 4\r\n\r\nfail")
        assert statuses(received(client)) == [500]
        with connected(url) as other:
            assert is_open(other)
    assert "A request was cut off." in caplog.text
