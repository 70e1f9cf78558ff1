"""Whatever comes over HTTP, the server answers within bounds and goes on: requests made at random, most almost right.

``LCKV_FUZZ_REQUESTS`` sets how many are sent (to each engine), ``LCKV_FUZZ_SEED`` repeats a run.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from faults.requests_at_random import Case, cases
from langchain_kv.errors import CODES
from langchain_kv.testing import DataAPIServer

pytestmark = pytest.mark.slow

REQUESTS = int(os.environ.get("LCKV_FUZZ_REQUESTS", "1500"))
SEED = int(os.environ.get("LCKV_FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
ANSWER_TIMEOUT_S = 20.0
RENEW_AFTER = 250
"""Requests after which the server is emptied, so that a run of any length keeps as little as a short one."""

COLLECTIONS: dict[str, Any] = {
    "plain": {},
    "ids": {"indexing": {"allow": ["_id"]}},
    "some": {"indexing": {"deny": ["a.b", "c"]}},
    "uuids": {"defaultId": {"type": "uuidv7"}},
}
DOCUMENTS: list[Any] = [
    {"_id": "a", "a": [1, {"b": [2, 3]}], "c": "text"},
    {"_id": "b", "a": {"b": 1.5, "0": None}, "c": {"$date": 0}},
    {"_id": 5, "a": True, "tags": ["x", "y"]},
    {"_id": None, "a": []},
]


class Answer(NamedTuple):
    status: int
    kind: str
    body: bytes


class Connection:
    """Sends bytes, and reads one answer to each; a new connection wherever the server closed the last one."""

    def __init__(self, url: str) -> None:
        self._address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self._socket: socket.socket | None = None

    def ask(self, case: Case) -> Answer | None:
        """Return the answer; None where the connection ended without one."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=ANSWER_TIMEOUT_S)
        is_kept = False
        try:
            self._socket.sendall(case.data)
            if case.ends:
                self._socket.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(self._socket, method=case.method)
            response.begin()
            body = response.read()
            is_kept = case.is_http and not response.will_close
            return Answer(response.status, response.getheader("content-type") or "", body)
        except TimeoutError:
            raise
        except (OSError, http.client.BadStatusLine, http.client.IncompleteRead):
            return None
        finally:
            if not is_kept:
                self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Fuzz:
    """One run against one server."""

    def __init__(self, server: DataAPIServer, seed: int) -> None:
        self._server = server
        self._cases = cases(random.Random(seed), server.token)
        self.violations: list[str] = []
        self.codes: Counter[str] = Counter()
        self.slowest: tuple[float, str] = (0.0, "")
        self._failures: list[logging.LogRecord] = []

    def run(self, count: int) -> None:
        connection = Connection(self._server.url)
        try:
            with self._listening_to_the_log():
                for number in range(count):
                    if number % RENEW_AFTER == 0:
                        self._renew(connection)
                    self._ask(number, next(self._cases), connection)
        finally:
            connection.close()

    def _renew(self, connection: Connection) -> None:
        self._server.reset()
        for name, options in COLLECTIONS.items():
            self._plain(connection, "", {"createCollection": {"name": name, "options": options}})
            self._plain(connection, "/" + name, {"insertMany": {"documents": DOCUMENTS}})

    def _plain(self, connection: Connection, path: str, command: Any) -> Any:
        body = json.dumps(command).encode()
        head = f"POST /v1/default_keyspace{path} HTTP/1.1\r\nHost: x\r\nToken: {self._server.token}\r\n"
        answer = connection.ask(Case("plain", f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body))
        assert answer is not None
        assert answer.status == 200
        return json.loads(answer.body)

    def _ask(self, number: int, case: Case, connection: Connection) -> None:
        started = time.monotonic()
        try:
            answer = connection.ask(case)
            wrong = judge(case, answer)
            if answer is not None and wrong is None:
                self.codes[code_of(answer)] += 1
        except TimeoutError:
            connection.close()
            wrong = f"no answer within {ANSWER_TIMEOUT_S} s"
        elapsed_s = time.monotonic() - started
        self.slowest = max(self.slowest, (elapsed_s, f"{number} {case.kind}"))
        wrong = wrong or ("an error in the log" if self._failures else None)
        if wrong is None and not case.is_http:
            reply = self._plain(connection, "", {"findCollections": {}})
            wrong = None if "status" in reply else "the next plain request failed"
        if wrong:
            trace = "".join(logging.Formatter().formatException(one.exc_info) for one in self._failures if one.exc_info)
            self.violations.append(f"{number} {case.kind} ({elapsed_s:.1f} s): {wrong}\n{case.data[:1500]!r}\n{trace}")
            self._failures.clear()

    @contextmanager
    def _listening_to_the_log(self) -> Iterator[None]:
        handler = logging.Handler(logging.ERROR)
        handler.emit = self._failures.append  # type: ignore[method-assign]
        loggers = [logging.getLogger(name) for name in ("langchain_kv", "asyncio")]
        for logger in loggers:
            logger.addHandler(handler)
        yield
        for logger in loggers:
            logger.removeHandler(handler)


def code_of(answer: Answer) -> str:
    if answer.status not in (200, 401, 415) or not answer.body.startswith(b"{"):
        return str(answer.status)
    envelope = json.loads(answer.body)
    return str(envelope["errors"][0]["errorCode"]) if "errors" in envelope else "done"


def judge(case: Case, answer: Answer | None) -> str | None:
    """Say what is wrong with an answer, if anything."""
    if answer is None:
        return None if not case.is_http else "the connection was closed without an answer"
    if b"Traceback" in answer.body or b'.py"' in answer.body:
        return "a stack trace"
    if answer.status in (404, 405, 413):
        return "a body beside a bare status" if answer.body else None
    if answer.status in (400, 431):  # the parser of HTTP itself, which no command reaches
        return "the parser refused good HTTP" if case.is_http else None
    if answer.status not in (200, 401, 415):
        return f"HTTP status {answer.status}"
    if case.method == "HEAD" or not answer.kind.startswith("application/json") or case.is_health:
        return None if case.is_health or case.method == "HEAD" else f"content type {answer.kind}"
    return judge_envelope(answer)


def judge_envelope(answer: Answer) -> str | None:
    try:
        envelope = json.loads(answer.body)
    except ValueError:
        return "not JSON"
    if not isinstance(envelope, dict) or not envelope or not envelope.keys() <= {"data", "status", "errors"}:
        return "no envelope"
    if answer.status != 200 and "errors" not in envelope:
        return f"HTTP status {answer.status} without an error"
    for error in envelope.get("errors", ()):
        if not {"errorCode", "family", "scope", "title", "message", "id"} <= error.keys():
            return "an incomplete error"
        if error["errorCode"] not in CODES:
            return f"the unknown code {error['errorCode']}"
        # The real server answers a bad page state so; of any other use nobody thought.
        if error["errorCode"] == "UNEXPECTED_SERVER_ERROR" and "pageState" not in error["message"]:
            return "UNEXPECTED_SERVER_ERROR"
    return None


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("place", ["memory", "sqlite"])
def test_requests_at_random_are_answered_and_the_server_goes_on(place: str, tmp_path: Path) -> None:
    print(f"LCKV_FUZZ_SEED={SEED} LCKV_FUZZ_REQUESTS={REQUESTS}")
    with DataAPIServer(None if place == "memory" else f"sqlite:{tmp_path / 'kv.db'}") as server:
        fuzz = Fuzz(server, SEED)
        started = time.monotonic()
        fuzz.run(min(REQUESTS, 500))
        before = resident_bytes() if Path("/proc/self/statm").exists() else 0
        fuzz.run(REQUESTS - min(REQUESTS, 500))
        after = resident_bytes() if before else 0
    print(
        f"{place}: {REQUESTS} requests in {time.monotonic() - started:.0f} s, the slowest {fuzz.slowest},"
        f" {len(fuzz.violations)} violations, resident memory {before / 2**20:.0f} MiB after 500 requests,"
        f" {after / 2**20:.0f} MiB at the end; {dict(fuzz.codes.most_common())}"
    )
    assert not fuzz.violations, f"seed {SEED}, {len(fuzz.violations)}:\n" + "\n".join(fuzz.violations[:20])
    assert after <= before + 200 * 2**20
    if REQUESTS >= 1000:
        assert len(fuzz.codes) > 20, "the requests are not varied enough to mean anything"


# -- what chance would not find ---------------------------------------------------------------------------------------

LONG = 512 * 1024
LONG_REQUESTS = {
    "names, the last one twice": lambda: f'{{"find":{{"filter":{{{_fields(LONG)},"z":1,"z":2}}}}}}',
    "an escaped path": lambda: '{"find":{"filter":{"&&%s":1}}}' % ("a" * LONG),
    "an escaped path to sort by": lambda: '{"find":{"sort":{"&&%s":1}}}' % ("a" * LONG),
    "an escaped path to project": lambda: '{"find":{"projection":{"&&%s":1}}}' % ("a" * LONG),
    "an escaped path to set": lambda: '{"updateOne":{"filter":{},"update":{"$set":{"&&%s":1}}}}' % ("a" * LONG),
    "a path of many names": lambda: '{"find":{"filter":{"%sa":1}}}' % ("a." * (LONG // 2)),
    "an $all of what every document has": lambda: '{"find":{"filter":{"a":{"$all":[%s999]}}}}' % ("999," * (LONG // 4)),
    "comparisons": lambda: '{"find":{"filter":{"$and":[%s{}]}}}' % ('{"a":1},' * (LONG // 8)),
    "brackets": lambda: "[" * LONG,
    "pairs of brackets": lambda: "[]" * (LONG // 2),
    "quotes": lambda: '{"' * (LONG // 2),
    "backslashes": lambda: '{"a":"%s"}' % ("\\\\" * (LONG // 2)),
    "exponents": lambda: '{"insertOne":{"document":{"_id":%s}}}' % ("1e2147483647" + " " * LONG),
    "a number": lambda: '{"insertOne":{"document":{"_id":%s}}}' % ("9" * LONG),
}


def _fields(size: int) -> str:
    return ",".join(f'"n{n}":1' for n in range(size // 10))


def post(server: DataAPIServer, kind: str, body: str, path: str = "/kv", headers: str = "") -> Answer:
    head = f"POST /v1/default_keyspace{path} HTTP/1.1\r\nHost: x\r\n{headers}Token: {server.token}\r\n"
    case = Case(kind, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    with closing(Connection(server.url)) as connection:
        answer = connection.ask(case)
    assert judge(case, answer) is None
    assert answer is not None
    return answer


@pytest.mark.parametrize("kind", LONG_REQUESTS)
def test_a_long_request_takes_no_more_than_its_length_explains(data_api: DataAPIServer, kind: str) -> None:
    documents = [{"_id": f"n{n}", "a": list(range(1000))} for n in range(50)]
    post(data_api, "plain", '{"createCollection":{"name":"kv"}}', "")
    post(data_api, "plain", json.dumps({"insertMany": {"documents": documents}}))
    body = LONG_REQUESTS[kind]()
    started = time.monotonic()
    post(data_api, kind, body)

    assert time.monotonic() - started < 5, "it grows faster than the request: half a second is usual"


HALF_A_PAIR = {
    "a collection to delete": ("", '{"deleteCollection":{"name":"\\ud800"}}'),
    "a path to index": ("", '{"createCollection":{"name":"new","options":{"indexing":{"allow":["\\ud800"]}}}}'),
    "an id": ("/kv", '{"insertOne":{"document":{"_id":"\\ud800"}}}'),
    "a field": ("/kv", '{"insertOne":{"document":{"\\ud800":1}}}'),
}


@pytest.mark.parametrize("kind", HALF_A_PAIR)
@pytest.mark.parametrize("place", ["memory", "sqlite"])
def test_half_a_surrogate_pair_does_no_harm_that_lasts(
    place: str, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, body = HALF_A_PAIR[kind]
    with DataAPIServer(None if place == "memory" else f"sqlite:{tmp_path / 'kv.db'}") as server:
        post(server, "plain", '{"createCollection":{"name":"kv"}}', "")
        post(server, kind, body, path)
        post(server, "plain", '{"findCollections":{"options":{"explain":true}}}', "")
        post(server, "plain", '{"find":{}}')

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("part", [b"X-Name: value\r\n", b"x"])
@pytest.mark.parametrize("start", [b"POST /v1", b"POST /v1 HTTP/1.1\r\n", b"POST /v1 HTTP/1.1\r\nX: "])
def test_a_head_without_an_end_is_cut_off(data_api: DataAPIServer, start: bytes, part: bytes) -> None:
    address = urlsplit(data_api.url)
    sent = 0
    with socket.create_connection((address.hostname, address.port), timeout=ANSWER_TIMEOUT_S) as flood:
        flood.sendall(start)
        with suppress(ConnectionError):
            while sent < 64 * 2**20:
                flood.sendall(part * (2**16 // len(part)))
                sent += 2**16

    assert sent < 16 * 2**20  # what the machine's own buffers hold
    assert post(data_api, "plain", '{"findCollections":{}}', "").status == 200


def test_many_headers_within_the_bound_are_read(data_api: DataAPIServer) -> None:
    headers = "".join(f"X-{n}: y\r\n" for n in range(3000))

    assert post(data_api, "headers", '{"findCollections":{}}', "", headers).status == 200
