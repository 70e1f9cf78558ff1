"""A stand-in for the REST interface of Upstash, over a real Redis, as its documentation says; with faults on demand."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from aiohttp import web

TOKEN = "a-token-of-the-stand-in"
URL_MAX_BYTES = 65_536


class Request(NamedTuple):
    """A request that came.

    Attributes:
        path: ``/``, ``/pipeline``, or that of a command.
        commands: what it asked for.
        headers: its headers.
    """

    path: str
    commands: list[list[bytes]]
    headers: dict[str, str]

    @property
    def names(self) -> list[str]:
        """The names of the commands."""
        return [command[0].decode().upper() for command in self.commands]


class Fault(NamedTuple):
    """What happens to a request.

    Attributes:
        kind: ``lost`` (carried out, and never answered), ``dropped`` (neither), ``cut`` (carried out, and answered in
            part), ``late`` (carried out, and answered when the server ends), or ``status``, which is not carried out.
        status: the HTTP status.
        body: the body that comes with it.
        retry_after: the header of that name.
        only: the name of a command that the request must have.
    """

    kind: str
    status: int = 200
    body: bytes = b""
    retry_after: str | None = None
    only: str | None = None


class UpstashServer:
    """The server.

    Attributes:
        url: where it is.
        requests: what came, in order.
        faults: what happens to the next requests, in order.
        speaks_resp2: whether it offers RESP2; ``refuses`` as some servers of this interface, which answer 400.
        size_max_bytes: of a request and of an answer.
        token: what it takes.
    """

    def __init__(self, redis_port: int) -> None:
        self._redis_port = redis_port
        self.url = ""
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.speaks_resp2: bool | str = True
        self.size_max_bytes = 10_000_000
        self.token = TOKEN
        self._number = 0
        self._is_ending = asyncio.Event()

    @property
    def commands(self) -> list[str]:
        """The names of all the commands that came."""
        return [name for request in self.requests for name in request.names]

    # -- HTTP ---------------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return self._json(401, {"error": "WRONGPASS invalid or missing auth token"})
        if request.method not in ("GET", "HEAD", "POST", "PUT"):
            return self._json(405, {"error": "ERR method is not allowed"})
        wants_resp2 = request.headers.get("Upstash-Response-Format", "json") == "resp2"
        is_base64 = request.headers.get("Upstash-Encoding") == "base64"
        if wants_resp2 and (is_base64 or self.speaks_resp2 == "refuses"):
            return self._json(400, {"error": "ERR resp2 is not supported with this"})
        path, _, query = request.raw_path.partition("?")
        try:
            commands = _commands(path, query, body)
        except (ValueError, TypeError):
            return self._json(400, {"error": "ERR failed to parse command"})
        self.requests.append(Request(path, commands, dict(request.headers)))
        fault = self._next_fault(self.requests[-1])
        if fault is not None and fault.kind == "status":
            headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            return web.Response(status=fault.status, body=fault.body, headers=headers)
        if fault is not None and fault.kind == "dropped":
            return _gone(request)
        if len(body) > self.size_max_bytes:
            return self._json(400, {"error": _too_large(self.size_max_bytes, len(body))})
        replies = await self._ask(commands, is_atomic=path == "/multi-exec")
        if sum(map(len, replies)) > self.size_max_bytes:
            return self._json(400, {"error": _too_large(self.size_max_bytes, sum(map(len, replies)))})
        is_many = path in ("/pipeline", "/multi-exec")
        if wants_resp2 and self.speaks_resp2 is True and path != "/multi-exec":
            answer = self._resp2(replies, is_many)
        else:
            answer = self._answer_in_json(replies, is_many, is_base64)
        if fault is None:
            return answer
        if fault.kind == "late":
            await self._is_ending.wait()
        return _gone(request) if fault.kind != "cut" else await _cut(request, answer)

    def _next_fault(self, request: Request) -> Fault | None:
        for number, fault in enumerate(self.faults):
            if fault.only is None or fault.only in request.names:
                return self.faults.pop(number)
        return None

    def _headers(self) -> dict[str, str]:
        self._number += 1
        return {"Upstash-Sync-Token": f"token-{self._number}"}

    def _json(self, status: int, value: Any) -> web.Response:
        text = json.dumps(value)
        return web.Response(status=status, text=text, content_type="application/json", headers=self._headers())

    def _resp2(self, replies: Sequence[bytes], is_many: bool) -> web.Response:
        body = b"".join([b"*%d\r\n" % len(replies), *replies]) if is_many else replies[0]
        is_error = not is_many and body.startswith(b"-")
        kind = "application/octet-stream"
        return web.Response(status=400 if is_error else 200, body=body, content_type=kind, headers=self._headers())

    def _answer_in_json(self, replies: Sequence[bytes], is_many: bool, is_base64: bool) -> web.Response:
        results = [_result(reply, is_base64) for reply in replies]
        is_error = not is_many and "error" in results[0]
        return self._json(400 if is_error else 200, results if is_many else results[0])

    # -- Redis --------------------------------------------------------------------------------------------------------

    async def _ask(self, commands: Sequence[Sequence[bytes]], *, is_atomic: bool) -> list[bytes]:
        """Return Redis's own answer to each command."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._redis_port)
        try:
            sent = [[b"MULTI"], *commands, [b"EXEC"]] if is_atomic else commands
            for command in sent:
                writer.write(b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in command))
            replies = [await _reply(reader) for _ in sent]
        finally:
            writer.close()
            await writer.wait_closed()
        if not is_atomic:
            return replies
        _, start = _value(replies[-1], 0, lambda text: text, is_whole=False)
        parts = []
        for _ in commands:
            end = _value(replies[-1], start, lambda text: text)[1]
            parts.append(replies[-1][start:end])
            start = end
        return parts

    async def end(self) -> None:
        self._is_ending.set()


def _commands(path: str, query: str, body: bytes) -> list[list[bytes]]:
    if path in ("/pipeline", "/multi-exec"):
        return [_arguments(command) for command in json.loads(body)]
    if path in ("", "/"):
        return [_arguments(json.loads(body))]
    command = [unquote_to_bytes(part) for part in path[1:].split("/")]
    if body:
        command.append(body)
    for name, value in parse_qsl(query, keep_blank_values=True):
        command += [name.encode(), *([value.encode()] if value else [])]
    return [command]


def _arguments(command: Any) -> list[bytes]:
    if not isinstance(command, list) or not command:
        raise ValueError(command)
    if not all(isinstance(part, str | int | float) for part in command):
        raise TypeError(command)
    return [str(part).encode() for part in command]


def _too_large(limit: int, actual: int) -> str:
    return f"ERR max request size exceeded. Limit: {limit} bytes, Actual: {actual} bytes."


def _gone(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _cut(request: web.Request, answer: web.Response) -> web.StreamResponse:
    body = answer.body
    assert isinstance(body, bytes)
    response = web.StreamResponse(status=answer.status, headers={"Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


async def _reply(reader: asyncio.StreamReader) -> bytes:
    """Return one reply as it came."""
    line = await reader.readuntil(b"\r\n")
    kind, number = line[:1], line[1:-2]
    if kind == b"$" and int(number) >= 0:
        return line + await reader.readexactly(int(number) + 2)
    if kind == b"*":
        return line + b"".join([await _reply(reader) for _ in range(int(number))])
    return line


def _value(reply: bytes, start: int, encode: Any, *, is_whole: bool = True) -> tuple[Any, int]:
    """Return what a reply says, its texts as ``encode`` makes them, and where it ends; of a list only its head."""
    end = reply.index(b"\r\n", start) + 2
    kind, line = reply[start : start + 1], reply[start + 1 : end - 2]
    if kind == b":":
        return int(line), end
    if kind == b"+":
        return "OK" if line == b"OK" else encode(line), end
    if kind == b"-":
        return {"error": line.decode()}, end
    if int(line) < 0:
        return None, end
    if kind == b"$":
        return encode(reply[end : end + int(line)]), end + int(line) + 2
    values = []
    for _ in range(int(line) if is_whole else 0):
        value, end = _value(reply, end, encode)
        values.append(value)
    return values, end


def _result(reply: bytes, is_base64: bool) -> dict[str, Any]:
    def encode(text: bytes) -> str:
        return base64.b64encode(text).decode() if is_base64 else text.decode("utf-8", "replace")

    value = _value(reply, 0, encode)[0]
    return value if isinstance(value, dict) else {"result": value}


@contextmanager
def running_upstash(redis_port: int) -> Iterator[UpstashServer]:
    """Start a server over a Redis, in a thread of its own; stop it at the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = UpstashServer(redis_port)

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=1_000_000_000)
        app.router.add_route("*", r"/{path:[\s\S]*}", server.handle)
        runner = web.AppRunner(app, access_log=None, max_line_size=URL_MAX_BYTES, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def stop(runner: web.AppRunner) -> None:
        await server.end()
        await runner.cleanup()

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(stop(runner), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
