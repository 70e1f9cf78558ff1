"""The server over HTTP: what is settled before a command is read, and how it starts and stops."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from langchain_kv.engines.base import CollectionName
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.errors import ConfigError
from langchain_kv.limits import BODY_MAX_BYTES
from langchain_kv.server.http.app import DataAPI
from langchain_kv.server.http.running import run_in_thread, serve

TOKEN = "tökén"
PATH = "/v1/default_keyspace/kv"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    engine = MemoryEngine()
    engine.create_collection(CollectionName("default_keyspace", "kv"), {})
    with run_in_thread(engine, TOKEN) as url:
        yield url
    engine.close()


def request(
    url: str, method: str = "POST", path: str = PATH, body: Any = b'{"findOne":{}}', **headers: Any
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    given = {"Token": TOKEN.encode(), **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        chunked = not isinstance(body, bytes | None)
        sent = {name: value for name, value in given.items() if value is not None}
        connection.request(method, path, body, sent, encode_chunked=chunked)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def code(reply: bytes) -> str:
    return str(json.loads(reply)["errors"][0]["errorCode"])


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"Token": None}, "MISSING_AUTHENTICATION_TOKEN"),
        ({"Token": ""}, "MISSING_AUTHENTICATION_TOKEN"),
        ({"Token": "wrong"}, "UNAUTHENTICATED_REQUEST"),
        ({"Token": TOKEN.encode() + b"x"}, "UNAUTHENTICATED_REQUEST"),
        ({"Token": "Cassandra:YQ==:Yg=="}, "UNAUTHENTICATED_REQUEST"),
        ({"Token": "wrong", "X_Cassandra_Token": TOKEN.encode()}, "UNAUTHENTICATED_REQUEST"),
        ({"Token": None, "Authorization": "Bearer x"}, "MISSING_AUTHENTICATION_TOKEN"),
    ],
)
def test_without_the_token_nothing_is_done(url: str, headers: dict[str, Any], wanted: str) -> None:
    for method in ("POST", "GET", "OPTIONS"):
        status, _, reply = request(url, method, body=b'{"insertOne":{"document":{"_id":"x"}}}', **headers)
        assert (status, code(reply)) == (401, wanted)
    assert json.loads(request(url, body=b'{"findOne":{"filter":{"_id":"x"}}}')[2]) == {"data": {"document": None}}


def test_the_older_header_carries_the_token_too(url: str) -> None:
    assert request(url, Token=None, X_Cassandra_Token=TOKEN.encode())[0] == 200
    assert request(url, Token="", X_Cassandra_Token=TOKEN.encode())[0] == 200


def test_an_empty_token_cannot_be_configured() -> None:
    with pytest.raises(ConfigError, match="token"):
        DataAPI(MemoryEngine(), "")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1", 405), ("GET", "/v1/ks", 405), ("PUT", PATH, 404), ("POST", "/v1/a/b/c", 404),
        ("POST", "/v1//b", 404), ("POST", "/v2", 404), ("POST", "/v1x", 404), ("GET", "/metrics", 404),
        ("POST", "/stargate/health", 405), ("POST", PATH + "/", 200), ("POST", "/v1/", 200), ("POST", "/v1", 200),
        ("POST", PATH + "?a=b", 200), ("GET", "/", 200), ("HEAD", "/stargate/health/ready", 200),
    ],
)  # fmt: skip
def test_paths_and_methods(url: str, method: str, path: str, status: int) -> None:
    answered, headers, reply = request(url, method, path)
    assert answered == status
    if status != 200:
        assert reply == b""
    assert "server" not in headers
    assert not any(name.startswith("access-control") for name in headers)


def test_health_needs_no_token_and_is_up(url: str) -> None:
    for path in ("/stargate/health", "/stargate/health/live", "/stargate/health/ready"):
        status, _, reply = request(url, "GET", path, None, Token=None)
        assert (status, json.loads(reply)) == (200, {"status": "UP", "checks": []})


@pytest.mark.parametrize(
    ("kind", "status"),
    [("text/plain", 415), ("application/xml", 415), ("APPLICATION/JSON", 200), ("application/json;charset=x", 200)],
)
def test_the_body_has_to_be_json(url: str, kind: str, status: int) -> None:
    answered, _, reply = request(url, Content_Type=kind)
    assert answered == status
    assert status == 200 or code(reply) == "UNSUPPORTED_CONTENT_TYPE"


@pytest.mark.slow
@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize(("excess", "status"), [(0, 200), (1, 413), (1024 * 1024, 413)])
def test_a_body_has_at_most_20_mib(url: str, is_chunked: bool, excess: int, status: int) -> None:
    body = b'{"findOne":{}}'.ljust(BODY_MAX_BYTES + excess)
    answered, _, reply = request(url, body=iter([body[:-10], body[-10:]]) if is_chunked else body)
    assert answered == status
    assert (reply == b"") is (status == 413)


def test_a_client_that_asks_first_is_told_before_it_sends(url: str) -> None:
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {BODY_MAX_BYTES + 1}\r\n"
        connection.sendall(head.encode() + b"Token: " + TOKEN.encode() + b"\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_client_that_leaves_in_the_middle_harms_nobody(url: str) -> None:
    for part in (b"", b'{"ins'):
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30) as connection:
            head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n".encode()
            connection.sendall(head + b"Token: " + TOKEN.encode() + b"\r\n\r\n" + part)
    assert request(url)[0] == 200


def test_requests_at_once_lose_no_write(url: str) -> None:
    def put(worker: int) -> None:
        for n in range(25):
            document = {"_id": f"w{worker}-{n}", "n": n}
            command = {"findOneAndReplace": {"filter": {"_id": document["_id"]}, "replacement": document,
                                             "options": {"upsert": True}}}  # fmt: skip
            assert json.loads(request(url, body=json.dumps(command).encode())[2])["status"]["upsertedId"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(8)))
    count = json.loads(request(url, body=b'{"countDocuments":{"filter":{"n":{"$exists":true}}}}')[2])
    assert count["status"]["count"] == 200


def test_one_of_many_inserts_of_an_id_wins(url: str) -> None:
    body = b'{"insertOne":{"document":{"_id":"race"}}}'
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: json.loads(request(url, body=body)[2]), range(40)))
    assert sum(bool(reply["status"]["insertedIds"]) for reply in replies) == 1


def test_a_server_on_a_thread_leaves_nothing_behind() -> None:
    engine = MemoryEngine()
    before = set(threading.enumerate())
    for _ in range(3):
        with run_in_thread(engine, "t") as url:
            kept = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
            kept.request("GET", "/")
            assert kept.getresponse().read()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30)
        kept.close()
    assert set(threading.enumerate()) == before
    gc.collect()  # an open socket or loop would warn, and fail the test
    engine.close()


def test_a_server_on_a_thread_runs_beside_a_loop_of_the_caller() -> None:
    async def both() -> int:
        with run_in_thread(MemoryEngine(), "t") as url:
            return (await asyncio.to_thread(request, url, "GET", "/", None))[0]

    assert asyncio.run(both()) == 200


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=str(port)), run_in_thread(MemoryEngine(), "t", port=port):
            pass
        with pytest.raises(ConfigError, match=str(port)):
            serve(DataAPI(MemoryEngine(), "t"), "127.0.0.1", port, lambda url: None)


def test_an_exception_in_the_block_stops_the_server_and_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError), run_in_thread(MemoryEngine(), "t") as url:
        raise ZeroDivisionError
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=30)


SERVE = """
import socket, sys
from urllib.parse import urlsplit
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.server.http.app import DataAPI
from langchain_kv.server.http.running import serve
def ready(url):
    socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)).close()
    print(url, flush=True)
serve(DataAPI(MemoryEngine(), "t"), "127.0.0.1", 0, ready)
print("ended", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_serving_in_good_order_and_in_silence(number: signal.Signals) -> None:
    command = [sys.executable, "-W", "error", "-c", SERVE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert request(url, "GET", "/")[0] == 200
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (0, "ended\n", "")


def test_an_import_of_the_package_loads_no_server() -> None:
    code = "import langchain_kv, sys; print([m for m in ('httptools', 'msgspec') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_reading_json_text_needs_no_third_party_module() -> None:
    code = (
        "import sys; from langchain_kv.values.json_text import read; read(b'[1.5]');"
        "print([m for m in ('orjson', 'httptools', 'msgspec', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
