"""``lckv serve --workers``: several processes behind one port, and the parent that keeps them running."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from langchain_kv import KVStore
from langchain_kv.cli import serving
from langchain_kv.cli.main import run
from served import STRICT, TOKEN, Server, ask

pytestmark = pytest.mark.slow

KEYSPACE = "/v1/default_keyspace"
COLLECTION = f"{KEYSPACE}/kv"
CLIENTS = 8

Start = Callable[[int], Server]


@pytest.fixture
def start(serve: Callable[..., Server], tmp_path: Path) -> Start:
    def start(workers: int) -> Server:
        options = ["--db", f"sqlite:{tmp_path / 'kv.db'}", "--workers", str(workers)]
        return serve(*options, LCKV_TOKEN=TOKEN, **STRICT)

    return start


def workers_of(server: Server) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,pid="], capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in listed.splitlines()]
    return [int(pid) for parent, pid in pairs if int(parent) == server.process.pid]


def next_note(server: Server) -> str:
    assert server.process.stderr is not None
    return server.process.stderr.readline()


def create_collection(server: Server) -> None:
    ask(server.url, TOKEN, {"createCollection": {"name": "kv"}}, KEYSPACE)


def ask_at_once(server: Server, commands: list[dict[str, Any]]) -> list[Any]:
    """Send each command on a connection of its own, several at the same time."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(lambda command: ask(server.url, TOKEN, command, COLLECTION), commands))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_once_where_it_listens_answers_there_and_ends_with_0(start: Start, number: int) -> None:
    server = start(2)

    assert re.fullmatch(r"listening on http://127\.0\.0\.1:\d+\n", server.line)
    assert len(workers_of(server)) == 2
    with KVStore("kv", server.url, token=TOKEN) as store:
        store.mset([("a", {"n": 1})])
        assert store.mget(["a"]) == [{"n": 1}]
    assert server.end(number) == (0, "", "")  # read until the last process that can write there has ended


def test_connections_are_dealt_in_turn_and_each_worker_sees_what_another_wrote(start: Start) -> None:
    server = start(2)
    create_collection(server)
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    headers = {"Token": TOKEN, "Content-Type": "application/json"}
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(HTTPConnection(*address, timeout=30))) for _ in range(2 * CLIENTS)]
        for number, client in enumerate(clients):
            client.request("POST", COLLECTION, f'{{"insertOne":{{"document":{{"_id":"k{number}"}}}}}}', headers)
            assert client.getresponse().read() == f'{{"status":{{"insertedIds":["k{number}"]}}}}'.encode()
            client.request("POST", COLLECTION, '{"countDocuments":{}}', headers)
            assert client.getresponse().read() == f'{{"status":{{"count":{number + 1}}}}}'.encode()

        os.kill(workers_of(server)[0], signal.SIGKILL)
        next_note(server)  # the kernel has closed the killed one's connections
        ended = [client for client in clients if select.select([client.sock], [], [], 0)[0]]

        assert len(ended) == CLIENTS


def test_updates_of_the_same_documents_through_several_workers_are_all_there(start: Start) -> None:
    server = start(3)
    create_collection(server)
    keys = [f"k{number}" for number in range(5)]
    increment = {"update": {"$inc": {"n": 1}}, "options": {"upsert": True}}

    answers = ask_at_once(server, [{"updateOne": {"filter": {"_id": key}, **increment}} for key in keys * 20])

    assert [answer for answer in answers if "errors" in answer] == []
    found: Any = ask(server.url, TOKEN, {"find": {}}, COLLECTION)
    assert {each["_id"]: each["n"] for each in found["data"]["documents"]} == dict.fromkeys(keys, 20)


def test_of_inserts_of_the_same_keys_through_several_workers_each_key_is_inserted_once(start: Start) -> None:
    server = start(3)
    create_collection(server)
    keys = [f"k{number}" for number in range(40)]
    batches = [
        {"documents": [{"_id": key, "by": client} for key in keys], "options": {"ordered": False}}
        for client in range(CLIENTS)
    ]

    answers = ask_at_once(server, [{"insertMany": batch} for batch in batches])

    winners = {key: client for client, answer in enumerate(answers) for key in answer["status"]["insertedIds"]}
    assert Counter(key for answer in answers for key in answer["status"]["insertedIds"]) == Counter(keys)
    assert {error["errorCode"] for answer in answers for error in answer.get("errors", ())} <= {
        "DOCUMENT_ALREADY_EXISTS"
    }
    asked = [{"findOne": {"filter": {"_id": key}}} for key in keys]
    documents = [answer["data"]["document"] for answer in ask_at_once(server, asked)]
    assert {each["_id"]: each["by"] for each in documents} == winners


def test_a_request_in_flight_ends_before_the_server_does(start: Start) -> None:
    server = start(2)
    create_collection(server)
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    body = b'{"insertOne":{"document":{"_id":"late"}}}'
    head = f"POST {COLLECTION} HTTP/1.1\r\nHost: x\r\nToken: {TOKEN}\r\nContent-Type: application/json\r\n"
    with ExitStack() as stack:
        busy, *idle = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(1 + CLIENTS)]
        for client in idle:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(10_000)
        busy.sendall(f"{head}Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        assert b" 100 " in busy.recv(10_000)

        server.process.send_signal(signal.SIGTERM)
        for client in idle:
            while client.recv(10_000):
                pass  # until the worker closes it, which is stopping then
        busy.sendall(body)

        assert b'"insertedIds":["late"]' in b"".join(iter(lambda: busy.recv(10_000), b""))
    assert server.process.communicate(timeout=30) == ("", "")
    assert server.process.returncode == 0


def test_workers_that_are_killed_are_replaced_and_the_server_goes_on(start: Start) -> None:
    server = start(2)
    create_collection(server)
    ask(server.url, TOKEN, {"insertOne": {"document": {"_id": "a"}}}, COLLECTION)
    before = workers_of(server)

    for pid in before:
        os.kill(pid, signal.SIGKILL)
    notes = {next_note(server) for _ in before}

    assert notes == {f"lckv: worker {pid} ended (signal 9); another one takes its place\n" for pid in before}
    found: Any = ask(server.url, TOKEN, {"findOne": {"filter": {"_id": "a"}}}, COLLECTION)  # waits for one of the new
    assert found["data"]["document"] == {"_id": "a"}
    assert not set(before) & set(workers_of(server))
    assert server.end() == (0, "", "")


def test_workers_that_end_again_and_again_before_they_answer_end_the_server(start: Start, tmp_path: Path) -> None:
    server = start(2)
    (tmp_path / "other").write_bytes(b"not ours" * 1_000)
    (tmp_path / "other").replace(tmp_path / "kv.db")

    os.kill(workers_of(server)[0], signal.SIGKILL)
    out, error = server.process.communicate(timeout=60)

    assert (server.process.returncode, out) == (3, "")
    assert error.splitlines()[-1] == "lckv: A worker ended 3 times before it answered: the server ends."
    assert error.count("kv.db") == 3  # each said why


def test_a_killed_parent_leaves_no_worker(start: Start) -> None:
    server = start(2)

    server.process.kill()

    # Read until the last process that can write there has ended.
    assert server.process.communicate(timeout=30) == ("", "")


def test_the_token_is_no_argument_of_any_process(start: Start) -> None:
    server = start(2)
    pids = ",".join(map(str, [server.process.pid, *workers_of(server)]))

    shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", pids], capture_output=True, text=True, check=True).stdout

    assert shown.count("\n") == 3
    assert TOKEN not in shown


def test_a_port_in_use_is_one_line_and_starts_nothing(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = start(2).url.rpartition(":")[2]
    monkeypatch.setenv("LCKV_TOKEN", TOKEN)

    assert run(["serve", "--db", f"sqlite:{tmp_path / 'other.db'}", "--workers", "2", "--port", port]) == 2

    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert port in error


def test_where_processes_cannot_share_a_socket_workers_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "sys", SimpleNamespace(platform="win32"))

    assert run(["serve", "--db", f"sqlite:{tmp_path / 'kv.db'}", "--workers", "2"]) == 2

    assert "Windows" in capsys.readouterr().err
    assert not (tmp_path / "kv.db").exists()
