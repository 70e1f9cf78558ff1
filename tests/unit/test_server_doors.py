"""Who is let in, by which path, and what the health checks say."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from langchain_kv import KVStore
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.engines.sqlite.engine import SQLiteEngine
from langchain_kv.errors import ConfigError, EngineError
from langchain_kv.runtime.work_queue import InlineBridge
from langchain_kv.server.http import app
from langchain_kv.server.http.app import DataAPI, login_token
from langchain_kv.server.http.running import run_app_in_thread, run_in_thread
from langchain_kv.testing import DataAPIServer

FIND = b'{"findKeyspaces":{}}'


def request(url: str, method: str, path: str, token: str | bytes | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        body = FIND if method == "POST" else None
        connection.request(method, path, body, {} if token is None else {"Token": token})
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None
    finally:
        connection.close()


def status(url: str, token: str | bytes) -> int:
    return request(url, "POST", "/v1", token)[0]


# -- the server's own token -------------------------------------------------------------------------------------------

AROUND = ["token\n", "token\r\n", "\n token", " token ", "\ttoken\t", "token\x0b", "\u00a0token"]


@pytest.mark.parametrize("given", AROUND)
def test_white_space_around_the_servers_token_is_taken_off(given: str) -> None:
    with run_in_thread(MemoryEngine(), given) as url:
        assert [status(url, "token"), status(url, "token  "), status(url, "tok en")] == [200, 200, 401]


@pytest.mark.parametrize("given", ["", " ", "\n", "a\nb", "a\0b", "a\x7f", "token\r\nX-Other: y"])
def test_a_token_that_no_client_could_send_is_refused(given: str) -> None:
    for make in (lambda: DataAPI(MemoryEngine(), given), lambda: DataAPIServer(token=given)):
        with pytest.raises(ConfigError, match="token"):
            make()


def test_a_server_has_a_token() -> None:
    with pytest.raises(ConfigError, match="token"):
        DataAPI(MemoryEngine())


def test_the_tests_server_says_its_token_as_clients_send_it() -> None:
    with DataAPIServer(token=" token\n") as server:
        assert server.token == "token"
        assert server.store().mget(["a"]) == [None]


# -- a user and a password --------------------------------------------------------------------------------------------


def test_the_token_of_a_user_is_what_clients_of_the_data_api_make() -> None:
    astrapy = pytest.importorskip("astrapy.authentication")
    for user, password in (("cassandra", "cassandra"), ("ü:ser", 'p"ä ss:wörd\n'), ("a", "b" * 300)):
        made = astrapy.UsernamePasswordTokenProvider(user, password).get_token()
        assert login_token(user, password) == made


def test_each_of_several_tokens_is_let_in_and_no_other() -> None:
    with run_app_in_thread(DataAPI(MemoryEngine(), "token", login_token("u", "p"))) as url:
        accepted = ["token", login_token("u", "p")]
        refused = [login_token("u", "q"), login_token("p", "u"), "u", "p", "Cassandra:u:p", "tokentoken", "token,token"]
        assert [status(url, token) for token in accepted] == [200, 200]
        assert [status(url, token) for token in refused] == [401] * len(refused)


# -- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/default_keyspace",
        "/v1/default_keyspace/kv",
        "/v1/a/b/c",
        "/v1//b",
        "/v1x",
        "/v1%2fa",
        "//v1",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_below_astras_path_is_what_is_below_v1(path: str, method: str) -> None:
    with run_in_thread(MemoryEngine(), "token") as url:
        for token in ("token", "wrong", None):
            here, there = (request(url, method, each, token) for each in (path, "/api/json" + path))
            for _, reply in (here, there):
                for error in (reply or {}).get("errors", ()):
                    error.pop("id")
            assert here == there


@pytest.mark.parametrize(
    "path", ["/api/json", "/api/json/", "/api/json/api/json/v1", "/api/v1", "/json/v1", "/api/jsonv1"]
)
def test_no_other_path_leads_to_commands(path: str) -> None:
    with run_in_thread(MemoryEngine(), "token") as url:
        assert request(url, "POST", path, "token") == (404, None)


# -- health -----------------------------------------------------------------------------------------------------------

DOWN = (503, {"status": "DOWN", "checks": [{"name": "database", "status": "DOWN"}]})
UP = (200, {"status": "UP", "checks": []})
LOOKS = ["/stargate/health", "/stargate/health/ready"]
LIVE = "/stargate/health/live"


class Ailing(MemoryEngine):
    """A memory engine that fails while it is told to."""

    error: Exception | None = None

    def keyspaces(self) -> list[str]:
        if self.error is not None:
            raise self.error
        return super().keyspaces()


class Stuck(InlineBridge):
    """A bridge whose writes never have their turn."""

    looks = 0

    async def write(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self.looks += 1
        await asyncio.Event().wait()


def test_an_engine_that_fails_is_down_until_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    engine = Ailing()
    with run_in_thread(engine, "token") as url:
        for path in LOOKS:
            engine.error = EngineError("disk gone: /secret/path")
            assert request(url, "GET", path) == DOWN
            assert request(url, "GET", LIVE) == UP
            engine.error = None
            assert request(url, "GET", path) == UP
    assert "/secret/path" in caplog.text


def test_an_engine_whose_writes_hang_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "HEALTH_S", 0.02)
    engine, bridge = MemoryEngine(), Stuck()
    monkeypatch.setattr(type(engine), "bridge", property(lambda self: bridge))
    with run_in_thread(engine, "token") as url:
        for path in LOOKS * 2:
            assert request(url, "GET", path) == DOWN
        assert request(url, "GET", LIVE) == UP
    assert bridge.looks == 1  # however many ask


def test_a_file_that_takes_writes_is_up_while_it_does(tmp_path: Path) -> None:
    engine = SQLiteEngine(str(tmp_path / "kv.db"))
    with closing(engine), run_in_thread(engine, "token") as url, KVStore("kv", url, token="token") as store:
        writing = threading.Thread(target=lambda: [store.mset([(f"k{n}", n)]) for n in range(50)])
        writing.start()
        answers = [request(url, "GET", path) for path in LOOKS * 20]
        writing.join()
        assert answers == [UP] * 40
        assert len(list(store.yield_keys())) == 50
