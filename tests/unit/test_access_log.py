"""One line for each request of ``lckv serve --log``: what is in it, and what never is."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from langchain_kv import KVStore
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.server.http.access_log import AccessLog
from langchain_kv.server.http.app import DataAPI
from langchain_kv.server.http.connections import Answer, HttpRequest
from langchain_kv.server.http.running import run_app_in_thread

TOKEN = "marked-token-77aa"
LINE = re.compile(
    r"(?P<method>\S+) (?P<path>\S+) (?P<command>\S+) (?P<status>\d+) [\d.]+ ms (?P<came>\d+) B in (?P<went>\d+) B out"
)


class Served(NamedTuple):
    url: str
    lines: list[str]

    @property
    def told(self) -> list[tuple[str, str, str, str]]:
        found = [LINE.fullmatch(line) for line in self.lines]
        assert all(found)
        return [match.group("method", "path", "command", "status") for match in found if match]

    def send(self, path: str, body: bytes | None = None, token: str | None = TOKEN, method: str | None = None) -> int:
        headers = {"Token": token} if token else {}
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code


@pytest.fixture
def served() -> Iterator[Served]:
    engine = MemoryEngine()
    engine.create_keyspace("default_keyspace")
    lines: list[str] = []
    with run_app_in_thread(AccessLog(DataAPI(engine, TOKEN), lines.append, (TOKEN,))) as url:
        yield Served(url, lines)
    assert "marked" not in "\n".join(lines)


def test_each_request_is_a_line_with_its_command_and_where_it_went(served: Served) -> None:
    with KVStore("kv", served.url, token=TOKEN) as store:
        store.mset([("marked-key", "marked-value"), ("b", 2)])
        store.mget(["marked-key"])

    assert [command for _, _, command, _ in served.told[:2]] == ["findCollections", "createCollection"]
    assert served.told[-1] == ("POST", "/v1/default_keyspace/kv", "find", "200")
    assert all(int(found["came"]) > 0 < int(found["went"]) for found in map(LINE.fullmatch, served.lines) if found)


def test_a_refused_request_has_its_status(served: Served) -> None:
    assert served.send("/v1/default_keyspace", b'{"findCollections": {}}', token="marked-wrong") == 401
    assert served.send("/v1/a/b", b"{}", method="PUT") == 404
    assert served.send("/stargate/health/live", token=None) == 200

    assert served.told == [
        ("POST", "/v1/default_keyspace", "-", "401"),
        ("PUT", "/v1/a/b", "-", "404"),
        ("GET", "/stargate/health/live", "-", "200"),
    ]


@pytest.mark.parametrize("body", [b'{"marked": {}}', b"marked", b'["marked"]', b'{"find', b"", b'{"find" "marked"}'])
def test_a_body_that_is_no_command_is_not_quoted(served: Served, body: bytes) -> None:
    served.send("/v1/default_keyspace/kv", body)

    assert served.told[0][2] in ("-", "find")


def test_a_path_writes_no_line_of_its_own_and_shows_no_token_and_no_keys(served: Served) -> None:
    served.send("/v1/a%0APOST%20/forged%20find%20200/b", b"{}")
    served.send(f"/v1/{TOKEN}?token={TOKEN}", b"{}")
    served.send("/page/value/marked-key?key=marked-key", token=None)
    served.send("/v1/" + "x" * 5_000, b"{}")

    assert len(served.told) == 4  # each is one line of the form
    assert served.told[1][1] == "/v1/***"
    assert served.told[2][1] == "/page/..."
    assert len(served.told[3][1]) < 250


async def test_a_command_that_ends_in_an_error_is_told_as_500() -> None:
    class Broken:
        def refuse(self, request: HttpRequest) -> Answer | None:
            return None

        async def answer(self, request: HttpRequest) -> Answer:
            raise RuntimeError("marked")

    connection: Any = None
    request = HttpRequest(connection, "POST", "/v1/ks/kv", {}, True)
    request.body = b'{"deleteMany": {"filter": {"_id": "marked"}}}'
    lines: list[str] = []
    with pytest.raises(RuntimeError):
        await AccessLog(Broken(), lines.append).answer(request)

    assert re.fullmatch(r"POST /v1/ks/kv deleteMany 500 [\d.]+ ms 45 B in 0 B out", lines[0])


def test_the_command_serves_with_it(serve_with_log: Any, tmp_path: Path) -> None:
    server, ended = serve_with_log
    with KVStore("kv", server.url, token=TOKEN) as store:
        store.mset([("marked-key", "marked-value")])
    code, _, error = ended()

    assert code == 0
    assert re.search(r"^POST /v1/default_keyspace/kv \w+ 200 [\d.]+ ms \d+ B in \d+ B out$", error, re.MULTILINE)
    assert "marked" not in error


@pytest.fixture
def serve_with_log(tmp_path: Path) -> Iterator[Any]:
    import subprocess

    from served import LCKV, Server, environment

    command = [*LCKV, "serve", "--port", "0", "--db", f"sqlite:{tmp_path / 'kv.db'}", "--log"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment(LCKV_TOKEN=TOKEN))
    server = Server(process)
    yield server, server.end
    if process.poll() is None:
        process.kill()
        process.communicate()
