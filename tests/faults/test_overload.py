"""A service that cannot keep up, is not there, sleeps, or drops connections: how much is sent, and how long."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from faults.proxy import Answer, Fault, Misbehaving, Request, api_error, errors, unused_port
from langchain_kv import AstraDBByteStore, AstraDBStore, KVByteStore, KVStore, SetupMode, limits
from langchain_kv.backends.base import Found, Record
from langchain_kv.backends.dataapi import retry
from langchain_kv.backends.dataapi.backend import DataAPIBackend
from langchain_kv.backends.dataapi.client import Pool
from langchain_kv.cli.main import run
from langchain_kv.errors import (
    BadReplyError,
    ConfigError,
    ConnectError,
    PartialWriteError,
    RequestTimeoutError,
    StoreError,
    TransportError,
)

pytestmark = pytest.mark.slow

DOCUMENT = [Found(1)]
FOR_EVER_S = 3600.0


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.002)
    monkeypatch.setattr(retry, "DELAY_MAX_S", 0.02)


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every wait between two tries longer than any deadline."""
    monkeypatch.setattr(retry.random, "uniform", lambda low, high: FOR_EVER_S)


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with Misbehaving() as server:
        server.plant(a=1)
        yield server


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def _backend(url: str, **more: Any) -> Iterator[DataAPIBackend]:
    given: dict[str, Any] = {"collection": "c", "keyspace": "k", "token": "t", "request_timeout_s": 5, "deadline_s": 10}
    backend = DataAPIBackend(url, **{**given, **more})
    try:
        yield backend
    finally:
        backend.close()


def _do(backend: DataAPIBackend, mode: str, verb: str, *arguments: Any) -> Any:
    if mode == "sync":
        return getattr(backend, verb)(*arguments)
    return asyncio.run(getattr(backend, "a" + verb)(*arguments))


def _keys(count: int) -> list[str]:
    return [f"k{n}" for n in range(count)]


def _records(count: int) -> list[Record]:
    return [Record(f"k{n}", b"%d" % n) for n in range(count)]


# -- as much at once as the service takes ---------------------------------------------------------------------------

BUSY = {
    "429": Answer(429, b"slow down", (("Retry-After", "0"),)),
    "503": Answer(503, b"<html><title>503 Service Unavailable</title></html>"),
    "a code of the database": errors(api_error("TIMEOUT_WRITING_DATA")),
}


@pytest.mark.slow
@pytest.mark.parametrize("busy", BUSY)
def test_requests_under_way_fall_when_the_service_is_overloaded_and_grow_again(
    server: Misbehaving, mode: str, busy: str
) -> None:
    seen: list[int] = []
    capacity = 4

    def overloaded(_: Request) -> Answer | None:
        seen.append(server.in_flight)
        return BUSY[busy] if server.in_flight > capacity else None

    server.delay_s = 0.005
    server.script = overloaded
    server.plant(**dict.fromkeys(_keys(600), "old"))
    with _backend(server.url) as backend, asyncio.Runner() as runner:
        put = backend.put_many if mode == "sync" else lambda records: runner.run(backend.aput_many(records))
        server.script = lambda _: None
        put(_records(600))  # from here on it knows that the keys exist
        server.script = overloaded
        put(_records(600))
        first, seen, capacity = seen, [], 1000
        put(_records(600))
    _judge(first, seen)
    assert server.values()["k599"] == 599


def _judge(overloaded: list[int], healed: list[int]) -> None:
    later = overloaded[len(overloaded) // 2 :]
    print(f"under way at most {max(overloaded)}, then {max(later)}, on average {sum(later) / len(later):.1f};")
    print(f"afterwards {healed[20]} at the 20th request, {max(healed)} at most; {len(overloaded)} requests for 600")
    assert max(overloaded) >= 20
    assert sum(later) / len(later) <= 6
    assert max(later) <= 12
    assert max(healed[:20]) <= 12
    assert max(healed) >= 15


@pytest.mark.slow
def test_operations_of_one_loop_share_what_they_learn(server: Misbehaving) -> None:
    server.delay_s = 0.005
    server.script = lambda request: Answer(429, b"", (("Retry-After", "0"),)) if server.in_flight > 2 else None

    async def main() -> int:
        with _backend(server.url) as backend:
            await asyncio.gather(*[backend.aget_many(["a"]) for _ in range(100)])
            server.script = lambda request: None
            server.in_flight_max = 0
            await asyncio.gather(*[backend.aget_many(["a"]) for _ in range(20)])
            await backend.aclose()
            return server.in_flight_max

    assert asyncio.run(main()) <= 10


def test_more_operations_than_connections_wait_for_their_turn(server: Misbehaving) -> None:
    server.delay_s = 0.05

    async def main() -> None:
        with _backend(server.url, request_timeout_s=2) as backend:
            found = await asyncio.gather(*[backend.aget_many(["a"]) for _ in range(300)])
            assert found == [DOCUMENT] * 300
            await backend.aclose()

    asyncio.run(main())
    assert server.in_flight_max <= 100


# -- one deadline for all of an operation ---------------------------------------------------------------------------

SOON_S = limits.DEADLINE_S / 2
"""Seconds that no test needs, however slow the machine is, unless it waits for the deadline that all have."""

LASTING: dict[str, Answer | Fault] = {
    **BUSY,
    "resets": Fault("reset"),
    "resets after": Fault("reset", applied=True),
    "stalls": Fault("stall"),
    "502": Answer(502),
}


@pytest.mark.slow
@pytest.mark.parametrize("existing", [False, True], ids=["new keys", "existing keys"])
@pytest.mark.parametrize("fault", LASTING)
def test_large_batch_of_which_every_request_fails_ends_with_the_one_deadline(
    server: Misbehaving, mode: str, fault: str, existing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = _keys(6000)
    with _backend(server.url) as backend:
        if existing:
            backend.put_many(_records(10))
            backend.put_many(_records(10))  # from now on it upserts at once
        monkeypatch.setattr(backend, "_deadline_s", 0.5)
        monkeypatch.setattr(backend, "_request_timeout_s", 0.2)
        # What left, and not what the server read: a request may end before that, and then leaves its keys unknown.
        sent: set[str] = set()
        post = Pool.post

        def noted(pool: Pool, url: Any, body: bytes, *arguments: Any) -> Any:
            sent.update(re.findall(r'"_id": ?"(k\d+)"', body.decode()))
            return post(pool, url, body, *arguments)

        monkeypatch.setattr(Pool, "post", noted)
        server.script = lambda request: LASTING[fault]
        with pytest.raises(StoreError) as caught:
            _do(backend, mode, "put_many", _records(6000))
    error = caught.value
    unsent = set(keys) - sent
    assert unsent, "with a deadline for each part every part would have been tried"
    if isinstance(error, PartialWriteError):
        assert unsent <= set(error.unwritten)
        assert set(error.unwritten) | set(error.unknown) == set(keys)
        assert fault == "429" or set(error.unknown)
    else:
        assert error.applied is False
        assert fault == "429"


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["get_many", "delete_many"])
@pytest.mark.parametrize("fault", ["503", "stalls"])
def test_other_large_batches_end_with_the_one_deadline_too(
    server: Misbehaving, mode: str, verb: str, fault: str
) -> None:
    server.script = lambda request: LASTING[fault]
    keys = _keys(20_000)
    with _backend(server.url, deadline_s=0.5, request_timeout_s=0.2) as backend:
        with pytest.raises(StoreError):
            _do(backend, mode, verb, keys)
    sent = {key for request in server.requests for key in re.findall(r'"(k\d+)"', request.body.decode())}
    assert set(keys) - sent, "with a deadline for each part every part would have been tried"


def test_answer_that_drips_for_ever_ends_with_the_requests_time(server: Misbehaving, mode: str) -> None:
    server.faults.append(Fault("drip"))
    started = monotonic()
    with _backend(server.url, request_timeout_s=0.2) as backend:
        assert _do(backend, mode, "get_many", ["a"]) == DOCUMENT
    assert 0.2 <= monotonic() - started < SOON_S
    assert len(server.requests) == 2


# -- nothing there --------------------------------------------------------------------------------------------------


def test_first_contact_that_is_refused_ends_soon_and_says_so_while_it_waits(
    mode: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "FIRST_CONTACT_S", 0.2)
    started = monotonic()
    with _backend(f"http://127.0.0.1:{unused_port()}", deadline_s=60) as backend:
        with pytest.raises(ConnectError, match="check the endpoint") as caught:
            _do(backend, mode, "put_many", _records(1000))
    assert monotonic() - started < SOON_S
    assert caught.value.applied is False
    (line,) = [record for record in caplog.records if record.name == "langchain_kv"]
    assert "Nothing ever answered there" in line.getMessage()


def test_server_that_is_just_starting_is_met(server: Misbehaving, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server.set_door("shut")

    def open_the_door(*_: Any) -> None:  # when the client says that it waits
        monkeypatch.undo()
        server.set_door("open")

    monkeypatch.setattr(retry._log, "warning", open_the_door)
    with _backend(server.url) as backend:
        assert _do(backend, mode, "get_many", ["a"]) == DOCUMENT


def test_endpoint_that_answered_before_is_given_the_whole_deadline(
    server: Misbehaving, mode: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "FIRST_CONTACT_S", 0.0)
    with _backend(server.url) as backend:
        assert _do(backend, mode, "get_many", ["a"]) == DOCUMENT
        server.close_idle()
        server.set_door("shut")
        refused = threading.Event()
        sleep = asyncio.sleep

        async def noted(delay_s: float) -> None:
            refused.set()
            await sleep(delay_s)

        monkeypatch.setattr(retry.asyncio, "sleep", noted)
        opener = threading.Thread(target=lambda: (refused.wait(10), server.set_door("open")))
        opener.start()
        assert _do(backend, mode, "get_many", ["a"]) == DOCUMENT
        opener.join(10)
    assert refused.is_set()
    assert not caplog.records


def _look_ups(monkeypatch: pytest.MonkeyPatch, answer: Callable[[int], Any]) -> list[str]:
    """Answer the look-ups of names ending in ``.test`` by their number; return the list that they are noted in."""
    looked_up: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **hints: Any) -> Any:
        if not str(host).endswith(".test"):
            return real(host, port, *arguments, **hints)
        if hints.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        looked_up.append(host)
        found = answer(len(looked_up))
        if isinstance(found, Exception):
            raise found
        return real(found, port, *arguments, **hints)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return looked_up


@pytest.mark.parametrize("code", ["EAI_NONAME", "EAI_NODATA", "EAI_FAIL"])
def test_name_that_does_not_exist_is_an_error_at_once(mode: str, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    looked_up = _look_ups(monkeypatch, lambda number: socket.gaierror(getattr(socket, code), "no such name"))
    with _backend("http://nowhere.test:1") as backend:
        with pytest.raises(ConnectError, match=r"nowhere\.test.*no such name.*check the endpoint") as caught:
            _do(backend, mode, "put_many", _records(3))
    assert len(looked_up) == 1
    assert not caught.value.retryable
    assert caught.value.applied is False


def test_name_that_cannot_be_looked_up_just_now_is_tried_again(
    server: Misbehaving, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = socket.gaierror(socket.EAI_AGAIN, "try again")
    looked_up = _look_ups(monkeypatch, lambda number: again if number <= 2 else "127.0.0.1")
    with _backend(f"http://here.test:{server.port}") as backend:
        assert _do(backend, mode, "get_many", ["a"]) == DOCUMENT
    assert len(looked_up) == 3


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not installed")
def test_certificate_that_nobody_vouches_for_is_an_error_at_once(mode: str, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run(["openssl", *made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve(stop: asyncio.Event, ready: Callable[[int], None]) -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        async with server:
            ready(server.sockets[0].getsockname()[1])
            await stop.wait()

    with _in_a_loop(serve) as port, _backend(f"https://127.0.0.1:{port}") as backend:
        started = monotonic()
        with pytest.raises(ConnectError, match="No secure connection") as caught:
            _do(backend, mode, "get_many", ["a"])
        assert monotonic() - started < SOON_S
    assert not caught.value.retryable
    assert "tries" not in str(caught.value)


@contextmanager
def _in_a_loop(serve: Callable[[asyncio.Event, Callable[[int], None]], Any]) -> Iterator[int]:
    """Run ``serve`` on a thread; give the port it names once it is ready, end it by its event."""
    ports: list[int] = []
    is_ready = threading.Event()
    ends: list[Callable[[], object]] = []

    def ready(port: int) -> None:
        ports.append(port)
        is_ready.set()

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)  # asyncio tells of handshakes that fail
        ends.append(lambda: loop.call_soon_threadsafe(stop.set))
        await serve(stop, ready)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert is_ready.wait(10)
        yield ports[0]
    finally:
        ends[0]()
        thread.join(10)


def test_lckv_gives_up_after_its_timeout(server: Misbehaving, capsys: pytest.CaptureFixture[str]) -> None:
    server.script = lambda request: Answer(502)
    for command in (["get", "a"], ["set", "a", "1"], ["del", "a"], ["keys"]):
        started = monotonic()
        code = run([*command, "--db", server.url, "--collection", "c", "--timeout", "0.1"])
        assert (code, monotonic() - started < SOON_S) == (4, True)
        assert "tries in 0." in capsys.readouterr().err


@pytest.mark.parametrize("given", ["0", "-1", "nan", "soon"])
def test_lckv_refuses_a_timeout_that_is_none(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "--db", "http://127.0.0.1:1", "--collection", "c", "--timeout", given]) == 2
    assert "--timeout" in capsys.readouterr().err


# -- a database that sleeps -----------------------------------------------------------------------------------------


def test_hibernated_database_is_waited_for_beyond_the_deadline(
    server: Misbehaving, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    awake = monotonic() + 0.6
    server.script = lambda request: Answer(503) if monotonic() < awake else None
    with _backend(server.url, deadline_s=0.1, is_astra=True) as backend:
        _do(backend, mode, "put_many", _records(4))
    assert server.values()["k3"] == 3
    (line,) = caplog.records
    assert "waiting up to 180 s" in line.getMessage()


def test_database_that_does_not_wake_is_given_up(server: Misbehaving, mode: str) -> None:
    server.script = lambda request: Answer(503)
    started = monotonic()
    with _backend(server.url, deadline_s=60, wake_timeout_s=0.2, is_astra=True) as backend:
        with pytest.raises(BadReplyError, match="HTTP 503"):
            _do(backend, mode, "get_many", ["a"])
    assert monotonic() - started < SOON_S


@pytest.mark.parametrize("kind", [KVStore, KVByteStore, AstraDBStore, AstraDBByteStore])
def test_every_store_takes_the_times_by_keyword(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"request_timeout_s": 1.0, "deadline_s": 2.0, "wake_timeout_s": 3.0}
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(DataAPIBackend, "__init__", lambda self, *_, **more: made.append(more))
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", "http://127.0.0.1:1")
    kind("c", setup_mode="OFF", **given)
    assert given.items() <= made[0].items()


@pytest.mark.parametrize("seconds", [0, -1, "10", float("nan"), True])
def test_time_to_wake_is_a_number_above_0(seconds: Any) -> None:
    with pytest.raises(ConfigError, match="wake_timeout_s"):
        KVStore("c", "http://127.0.0.1:1", setup_mode=SetupMode.OFF, wake_timeout_s=seconds)


# -- connections that were kept -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("verb", ["get_many", "put_many", "delete_many"])
async def test_request_finds_its_way_past_every_stale_connection_without_a_wait(
    server: Misbehaving, verb: str, count: int
) -> None:
    arguments: dict[str, Any] = {"get_many": ["a"], "put_many": _records(1), "delete_many": ["a"]}
    with _backend(server.url) as backend:
        server.delay_s = 0.05
        await asyncio.gather(*[backend.aget_many(["a"]) for _ in range(count)])
        server.delay_s = 0
        stale = server.connections
        server.script = lambda request: Fault("reset") if request.connection <= stale else None
        await getattr(backend, "a" + verb)(arguments[verb])
        await backend.aclose()
    assert stale >= count * 0.8
    assert len(server.requests) == count + stale + 1


@pytest.mark.usefixtures("no_patience")
def test_connection_that_breaks_at_its_first_request_is_not_stale(server: Misbehaving, mode: str) -> None:
    server.script = lambda request: Fault("reset")
    with _backend(server.url) as backend:
        with pytest.raises(TransportError) as caught:
            _do(backend, mode, "put_many", _records(1))
    assert len(server.requests) == 1
    assert caught.value.applied is None


@pytest.mark.usefixtures("no_patience")
def test_refusal_after_a_stale_connection_leaves_the_write_unknown(server: Misbehaving) -> None:
    with _backend(server.url) as backend:
        backend.get_many(["a"])
        server.faults.extend([Fault("reset", applied=True), Answer(403)])
        with pytest.raises(BadReplyError) as caught:
            backend.put_many(_records(1))
    assert caught.value.applied is None
    assert "tries" not in str(caught.value)


# -- Retry-After ----------------------------------------------------------------------------------------------------


def _at(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.slow
@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("is_date", [False, True], ids=["seconds", "date"])
def test_wait_that_the_service_names_replaces_the_clients_own(server: Misbehaving, status: int, is_date: bool) -> None:
    server.faults.append(Answer(status, b"", (("Retry-After", _at(3) if is_date else "2"),)))
    started = monotonic()
    with _backend(server.url) as backend:
        assert backend.get_many(["a"]) == DOCUMENT
    assert 1.5 <= monotonic() - started < 6


@pytest.mark.parametrize("is_date", [False, True], ids=["seconds", "date"])
def test_wait_beyond_the_deadline_is_told_and_not_begun(server: Misbehaving, mode: str, is_date: bool) -> None:
    server.script = lambda request: Answer(429, b"", (("Retry-After", _at(1000) if is_date else "1000"),))
    with _backend(server.url) as backend:
        with pytest.raises(BadReplyError, match=r"asks to wait (1000|99\d) s, longer than the deadline"):
            _do(backend, mode, "get_many", ["a"])
    assert len(server.requests) == 1


@pytest.mark.usefixtures("no_patience")
@pytest.mark.parametrize("wait", ["0", "Mon, 23 Nov 2020 00:00:00 GMT"])
def test_wait_of_no_length_leaves_the_clients_own(server: Misbehaving, mode: str, wait: str) -> None:
    server.faults.append(Answer(429, b"", (("Retry-After", wait),)))
    with _backend(server.url) as backend:
        with pytest.raises(BadReplyError, match="429"):
            _do(backend, mode, "get_many", ["a"])


def test_wait_that_cannot_be_read_is_as_none(server: Misbehaving, mode: str) -> None:
    server.faults.append(Answer(429, b"", (("Retry-After", "soon"),)))
    with _backend(server.url) as backend:
        assert _do(backend, mode, "get_many", ["a"]) == DOCUMENT


def test_stalled_request_is_told_with_its_time(server: Misbehaving, mode: str) -> None:
    server.script = lambda request: Fault("stall")
    with _backend(server.url, request_timeout_s=0.1, deadline_s=0.3) as backend:
        with pytest.raises(RequestTimeoutError, match=r"within 0\.1 s.*tries in 0\."):
            _do(backend, mode, "get_many", ["a"])
