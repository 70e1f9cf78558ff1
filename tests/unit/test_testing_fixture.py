"""What is shipped for users' tests: the fixture, the faults, the record, and the machine without the extra."""

from __future__ import annotations

import asyncio
import concurrent.futures
import doctest
import http.client
import inspect
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from langchain_kv import AstraDBStore, ConfigError, StoreClosedError, UnknownCollectionError, UsageError
from langchain_kv.testing import DataAPIServer
from pytest_child import run_pytest

INSERT = {"insertOne": {"document": {"_id": "a", "n": 1}}}
FIND = {"findOne": {"filter": {"_id": "a"}}}
SETTINGS = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
DOCUMENT = Path(__file__).parents[2] / "docs" / "testing.md"


def ask(
    server: DataAPIServer, command: Any, path: str = "/v1/default_keyspace/kv"
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    try:
        connection.request("POST", path, json.dumps(command), {"Token": server.token})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def found(server: DataAPIServer) -> Any:
    server.heal()
    return json.loads(ask(server, FIND)[2])["data"]["document"]


@pytest.fixture
def server(data_api: DataAPIServer) -> DataAPIServer:
    """The shipped fixture, with a collection."""
    assert ask(data_api, {"createCollection": {"name": "kv"}}, "/v1/default_keyspace")[0] == 200
    return data_api


# -- faults -------------------------------------------------------------------------------------------------------


def test_a_status_is_answered_with_retry_after_and_without_a_body(server: DataAPIServer) -> None:
    server.fail(status=429, retry_after_s=7)
    status, headers, body = ask(server, INSERT)

    assert (status, headers["retry-after"], body) == (429, "7", b"")
    assert found(server) is None


@pytest.mark.parametrize(
    ("code", "status", "family"),
    [("UNAVAILABLE_DATABASE", 200, "SERVER"), ("UNAUTHENTICATED_REQUEST", 401, "REQUEST"), ("NEW_ONE", 200, "REQUEST")],
)
def test_an_error_code_comes_in_the_envelope_of_the_data_api(
    server: DataAPIServer, code: str, status: int, family: str
) -> None:
    server.fail(code=code)
    answered, headers, body = ask(server, INSERT)
    (error,) = json.loads(body)["errors"]

    assert answered == status
    assert headers["content-type"].startswith("application/json")
    assert (error["errorCode"], error["family"]) == (code, family)
    assert found(server) is None


def test_a_dropped_connection_ends_without_an_answer(server: DataAPIServer) -> None:
    server.fail(drop=True)
    with pytest.raises(ConnectionError):
        ask(server, INSERT)

    assert found(server) is None


@pytest.mark.parametrize(
    "fault", [{"status": 502}, {"code": "TIMEOUT_WRITING_DATA"}, {"drop": True}, {"delay_s": 0.01}]
)
def test_an_applied_fault_comes_after_the_write(server: DataAPIServer, fault: dict[str, Any]) -> None:
    server.fail(applied=True, **fault)
    try:
        status, _, body = ask(server, INSERT)
        assert status == fault.get("status", 200)
        assert ("insertedIds" in body.decode()) is ("delay_s" in fault)
    except ConnectionError:
        assert fault.get("drop")

    assert found(server) == {"_id": "a", "n": 1}


def test_a_delay_is_waited_for_and_the_right_answer_follows(server: DataAPIServer) -> None:
    server.fail(delay_s=0.1)
    started = time.monotonic()

    assert ask(server, INSERT)[0] == 200
    assert time.monotonic() - started >= 0.1
    assert found(server) == {"_id": "a", "n": 1}


def test_as_many_requests_fail_as_was_said(server: DataAPIServer) -> None:
    server.fail(2, status=503)
    assert [ask(server, FIND)[0] for _ in range(3)] == [503, 503, 200]

    server.fail(None, status=503)
    assert [ask(server, FIND)[0] for _ in range(5)] == [503] * 5
    server.heal()
    assert ask(server, FIND)[0] == 200


def test_of_many_requests_at_once_no_more_fail(server: DataAPIServer) -> None:
    server.fail(3, status=503)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: ask(server, FIND)[0], range(40)))

    assert sorted(statuses) == [200] * 37 + [503] * 3


def test_a_fault_of_a_command_waits_for_it(server: DataAPIServer) -> None:
    server.fail(command="insertOne", status=503)

    assert [ask(server, command)[0] for command in (FIND, INSERT, INSERT)] == [200, 503, 200]


def test_faults_are_met_in_the_order_they_were_given(server: DataAPIServer) -> None:
    server.fail(status=500)
    server.fail(command="findOne", status=501)
    server.fail(status=502)

    assert [ask(server, FIND)[0] for _ in range(4)] == [500, 501, 502, 200]


@pytest.mark.parametrize(
    "arguments",
    [
        {}, {"status": 503, "drop": True}, {"status": 503, "code": "X"}, {"code": "X", "drop": True},
        {"retry_after_s": 1},
        {"drop": True, "retry_after_s": 1}, {"status": 503, "retry_after_s": -1}, {"status": 99}, {"status": 700},
        {"times": 0, "drop": True}, {"delay_s": -1.0}, {"delay_s": float("nan")}, {"applied": True},
    ],
)  # fmt: skip
def test_a_fault_that_makes_no_sense_is_refused(server: DataAPIServer, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        server.fail(**arguments)
    assert ask(server, FIND)[0] == 200


# -- the record ---------------------------------------------------------------------------------------------------


def test_what_came_in_is_written_down_whatever_became_of_it(server: DataAPIServer) -> None:
    server.reset()
    server.fail(status=503)
    ask(server, INSERT)
    ask(server, FIND, "/v1/none/such")
    ask(server, ["no command"])

    assert server.commands == ["insertOne", "findOne"]
    first, second, third = server.requests
    assert first.fields == INSERT["insertOne"]
    assert (second.command, second.path) == ("findOne", "/v1/none/such")
    assert (third.command, third.body) == ("", b'["no command"]')


# -- reset --------------------------------------------------------------------------------------------------------


def test_reset_makes_the_server_as_new(server: DataAPIServer) -> None:
    ask(server, {"createKeyspace": {"name": "other"}}, "/v1")
    ask(server, {"dropKeyspace": {"name": "default_keyspace"}}, "/v1")
    store = server.store("mine", keyspace="other")
    store.mset([("a", 1)])
    server.fail(None, status=503)
    server.reset()

    assert server.commands == []
    assert json.loads(ask(server, {"findKeyspaces": {}}, "/v1")[2])["status"]["keyspaces"] == ["default_keyspace"]
    assert json.loads(ask(server, {"findCollections": {}}, "/v1/default_keyspace")[2])["status"]["collections"] == []
    with pytest.raises(StoreClosedError):
        store.mget(["a"])


def test_a_write_that_is_held_up_does_not_happen_after_a_reset(server: DataAPIServer) -> None:
    server.fail(delay_s=3600)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        write = pool.submit(ask, server, {"createCollection": {"name": "late"}}, "/v1/default_keyspace")
        wait_until(lambda: len(server.requests) == 2)
        server.reset()
        with pytest.raises(ConnectionError):
            write.result(30)

    assert json.loads(ask(server, {"findCollections": {}}, "/v1/default_keyspace")[2])["status"]["collections"] == []


def test_a_client_that_gives_up_is_not_waited_for(server: DataAPIServer) -> None:
    server.fail(delay_s=3600)
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    connection.request("POST", "/v1/default_keyspace/kv", json.dumps(INSERT), {"Token": server.token})
    wait_until(lambda: server.commands[-1:] == ["insertOne"])
    connection.close()
    wait_until(lambda: not server._faults._in_flight)

    assert found(server) is None


def wait_until(is_true: Any) -> None:
    ended = threading.Event()
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline
        ended.wait(0.001)


# -- the server ---------------------------------------------------------------------------------------------------


def test_each_server_is_alone_and_ends_with_what_it_holds_up() -> None:
    before = set(threading.enumerate())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with DataAPIServer() as one, DataAPIServer(token="other") as two:
            assert one.url != two.url
            one.store("kv").mset([("a", 1)])
            assert two.store("kv").mget(["a"]) == [None]
            one.fail(None, delay_s=3600)
            held_up = pool.submit(ask, one, FIND)
            wait_until(lambda: one.commands[-1:] == ["findOne"])
        with pytest.raises(ConnectionError):
            held_up.result(30)

    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "langchain-kv server"]


def test_a_file_keeps_what_was_stored_until_reset(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    with DataAPIServer(url) as server:
        server.store().mset([("a", 1)])
        server.byte_store("blobs").mset([("a", b"\xff")])
    with DataAPIServer(url) as server:
        assert server.store().mget(["a"]) == [1]
        assert server.byte_store("blobs").mget(["a"]) == [b"\xff"]
        server.reset()
        with pytest.raises(UnknownCollectionError):
            server.store(setup_mode="OFF").mget(["a"])


def test_another_server_is_no_place_for_documents() -> None:
    with pytest.raises(ConfigError, match="sqlite:PATH"):
        DataAPIServer("http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="sqlite:PATH"):  # whose keyspaces `reset` would drop
        DataAPIServer("cassandra://127.0.0.1:1/kv")
    with pytest.raises(ConfigError, match="token"), DataAPIServer(token=""):
        pass


async def test_coroutines_use_it_in_their_own_loop(data_api: DataAPIServer) -> None:
    data_api.fail(status=429, retry_after_s=0)
    async with AstraDBStore("kv", data_api.token, data_api.url, setup_mode="ASYNC") as store:
        await store.amset([("a", 1)])
        data_api.fail(command="find", drop=True)
        assert await asyncio.gather(store.amget(["a"]), store.amget(["b"])) == [[1], [None]]
    data_api.reset()
    assert data_api.commands == []


# -- the plugin ---------------------------------------------------------------------------------------------------

USERS_TESTS = """
import pytest

def test_one(data_api):
    data_api.fail(None, status=503)
    data_api.leak = data_api.url
    data_api.store  # a method, not called

def test_other(data_api, data_api_session):
    assert data_api is data_api_session
    assert data_api.leak == data_api.url
    data_api.store("kv").mset([("a", 1)])
    assert "findOneAndReplace" in data_api.commands

async def test_in_a_loop(data_api):
    assert data_api.commands == []
    store = data_api.store("kv", setup_mode="ASYNC")
    await store.amset([("b", 2)])
    assert await store.amget(["a", "b"]) == [None, 2]
"""


@pytest.mark.slow
def test_users_need_no_import_and_each_test_starts_with_an_empty_server(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(USERS_TESTS)
    assert "3 passed" in passed_tests(tmp_path, "filterwarnings = error\n")


def passed_tests(directory: Path, more: str = "") -> str:
    (directory / "pytest.ini").write_text(SETTINGS + more)
    done = run_pytest(directory, "-p", "no:randomly")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_tests_of_the_documentation_pass(tmp_path: Path) -> None:
    named = re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    for file, text in named:
        (tmp_path / file).write_text(text)
    wanted = sum(text.count("def test_") for _, text in named)

    assert len(named) == DOCUMENT.read_text().count("```python")
    assert wanted >= 6
    passed = re.search(r"(\d+) passed", passed_tests(tmp_path))
    assert passed
    assert int(passed[1]) >= wanted + 150  # with the contract's


def test_the_documentation_shows_every_argument_of_a_fault() -> None:
    arguments = set(inspect.signature(DataAPIServer.fail).parameters) - {"self"}

    assert {name for name in arguments if f"`{name}`" not in DOCUMENT.read_text()} == set()


def test_the_example_in_the_docstring_works() -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(DataAPIServer, globs={})
    failed, tried = doctest.DocTestRunner().run(test)

    assert tried
    assert not failed


def python(script: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_plugin_loads_no_server() -> None:
    heavy = "httptools", "aiohttp", "msgspec", "sqlite3"
    script = (
        "import sys, pytest, langchain_core.stores\nbefore = set(sys.modules)\nimport langchain_kv.testing.plugin\n"
        f"print([name for name in {heavy} if name in set(sys.modules) - before])"
    )

    assert python(script) == "[]\n"


@pytest.mark.slow
def test_the_contracts_are_loaded_when_they_are_asked_for() -> None:
    script = (
        "import sys, langchain_kv.testing as testing\nprint([name for name in ('pytest', 'langchain_core') if name in"
        " sys.modules])\nprint(testing.StoreContract.__name__, testing.BackendContract.__name__)\n"
        "print([name for name in ('httptools', 'sqlite3') if name in sys.modules])"
    )

    assert python(script) == "[]\nStoreContract BackendContract\n[]\n"


@pytest.mark.slow
def test_without_the_extra_the_plugin_loads_and_using_it_names_the_extra() -> None:
    script = (
        "import sys\nsys.modules['httptools'] = None\nimport langchain_kv.testing.plugin\n"
        "from langchain_kv import ConfigError\n"
        "try:\n    from langchain_kv.testing import DataAPIServer\n"
        "except ConfigError as error:\n    print(error)"
    )
    message = python(script)

    assert "httptools" in message
    assert "pip install 'langchain-kv[testing]'" in message
