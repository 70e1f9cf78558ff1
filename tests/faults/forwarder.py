"""A proxy between real clients and a real server that injects faults at random: its part of the soak.

Requests about one key reach the server in the order in which they came here, one after the other; one that its client
gave up is let through to its end, or dropped if that happened before it was read. So nothing takes effect after a later
request for the same key, and what must be stored is known, though clients retry, time out and cancel.
"""

from __future__ import annotations

import asyncio
import random
import re
import select
import socket
import struct
import threading
from collections import Counter

__all__ = ["FAULTS", "Forwarder"]

FAULTS = {
    "reset before": 4,
    "reset after": 4,
    "deaf": 1,
    "stall after": 1,
    "truncated": 3,
    "garbled": 3,
    "dripped": 3,
    "429": 3,
    "429 with Retry-After": 2,
    "502 page": 3,
    "503": 3,
    "401": 1,
    "413": 1,
    "ended when idle": 3,
}
"""Each fault with its share of all."""

ANSWERS = {
    "429": b"HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n",
    "429 with Retry-After": b"HTTP/1.1 429 X\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
    "502 page": b"HTTP/1.1 502 X\r\nContent-Type: text/html\r\nContent-Length: 16\r\n\r\n<h1>nothing</h1>",
    "503": b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n",
    "401": b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n",
    "413": b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n",
}
_KEY = re.compile(rb'"(w\w+-\d+)"')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Forwarder:
    """The proxy, on a thread of its own; a context manager.

    Args:
        port: where the server is, on loopback.
        seed: what the faults are drawn from.

    Attributes:
        share: how many of the requests meet a fault, from 0 to 1; may be changed from any thread.
        is_open: whether new connections are served; else they are reset at once.
        injected: how often each fault was met; ``abandoned``: how many requests their clients gave up meanwhile.
    """

    def __init__(self, port: int, seed: int) -> None:
        self._upstream = port
        self._random = random.Random(seed)
        self._in_flight: dict[asyncio.Task[bytes], set[bytes]] = {}
        self.share = 0.0
        self.is_open = True
        self.requests = 0
        self.abandoned = 0
        self.injected: Counter[str] = Counter()

    def __enter__(self) -> Forwarder:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**26)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(30)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _stop(self) -> None:
        self._loop.remove_reader(self._server.sockets[0].fileno())
        await asyncio.sleep(0)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=0.05)
        self._server.close()

    # -- one connection ---------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self.is_open:
                self.injected["connection refused"] += 1
                _reset(writer)
            while self.is_open and await self._serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            await _end(writer)

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await _body(head, reader)
        self.requests += 1
        fault = self._draw()
        if fault in ANSWERS:
            writer.write(ANSWERS[fault])
            await writer.drain()
            return True
        if fault == "reset before":
            _reset(writer)
            return False
        if fault == "deaf":
            await reader.read(1)  # until the client gives up
            return False
        if _has_left(writer):
            return False
        forwarding = self._start_forwarding(head + body, set(_KEY.findall(body)))
        gone = asyncio.create_task(reader.read(1))  # a client does not speak before it was answered
        try:
            await asyncio.wait({forwarding, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not forwarding.done():
                self.abandoned += 1
                return False
            if fault == "stall after":
                await gone
                return False
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        return await _answer(fault, forwarding.result(), writer)

    def _draw(self) -> str:
        if self._random.random() >= self.share:
            return ""
        fault = self._random.choices(list(FAULTS), list(FAULTS.values()))[0]
        self.injected[fault] += 1
        return fault

    def _start_forwarding(self, request: bytes, keys: set[bytes]) -> asyncio.Task[bytes]:
        earlier = [task for task, others in self._in_flight.items() if keys & others]
        task = asyncio.create_task(self._forward(request, earlier))
        self._in_flight[task] = keys
        task.add_done_callback(self._in_flight.pop)
        return task

    async def _forward(self, request: bytes, earlier: list[asyncio.Task[bytes]]) -> bytes:
        """Return the server's whole answer."""
        await asyncio.gather(*earlier, return_exceptions=True)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream, limit=2**26)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            return head + await _body(head, reader)
        finally:
            await _end(writer)


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    length = _LENGTH.search(head)
    return await reader.readexactly(int(length[1])) if length else b""


async def _answer(fault: str, reply: bytes, writer: asyncio.StreamWriter) -> bool:
    """Send the server's answer as the fault leaves it; return whether the connection goes on."""
    head = reply.index(b"\r\n\r\n") + 4
    middle = head + (len(reply) - head) // 2
    if fault == "reset after":
        _reset(writer)
        return False
    if fault == "truncated":
        writer.write(reply[:middle])
    elif fault == "garbled":
        writer.write(reply[:head] + b"\xff" * 3 + reply[head + 3 :])
    elif fault == "dripped":
        for start in range(0, len(reply), max(1, len(reply) // 10)):
            writer.write(reply[start : start + max(1, len(reply) // 10)])
            await writer.drain()
            await asyncio.sleep(0.01)
    else:
        writer.write(reply)
    await writer.drain()
    return fault not in ("truncated", "ended when idle")


def _has_left(writer: asyncio.StreamWriter) -> bool:
    """Tell whether the client has hung up, though asyncio may not have read that far."""
    poll = select.poll()
    poll.register(writer.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except (ConnectionError, asyncio.CancelledError):
        writer.transport.abort()
        await asyncio.sleep(0)
