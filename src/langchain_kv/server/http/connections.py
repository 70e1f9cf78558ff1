"""One client's connection: uvicorn's HTTP, made safer, and with a short way for ordinary commands.

An ordinary command is a small POST with the right token. Its body is gathered here and its answer written in one piece:
no scope, no messages, no events. Everything else goes uvicorn's way, and so do requests that wait behind another one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

__all__ = ["HEAD_MAX_BYTES", "Connection", "Outbox", "ShortWay"]

HEAD_MAX_BYTES: Final = 64 * 1024
"""Bytes of a request's first line and headers, about: one that goes on is answered with HTTP 400, and cut off."""

LARGE_ANSWER_BYTES: Final = 256 * 1024
"""An answer that takes a client longer to read than to be woken: a read of vectors takes a quarter less time."""

_UPGRADES: Final = (b"upgrade", b"http2-settings")

Command = Callable[[bytes], Awaitable[tuple[int, bytes]]]
"""Takes a whole body; answers the HTTP status and the JSON text of the reply. It raises nothing."""


class ShortWay(Protocol):
    """What an application offers for ordinary commands; one without it gets every request by ASGI."""

    def ordinary_command(self, url: bytes, headers: list[tuple[bytes, bytes]]) -> Command | None:
        """Return what carries out a POST, or None where the request is to go the long way."""


class _Parser(httptools.HttpRequestParser):
    """httptools' parser, with every offer of another protocol passed over, as HTTP allows: Java's client makes one.

    By itself it ends at the head of such a request, and what follows, its body, would be taken for the next request,
    though any proxy in front takes it for what it is.
    """

    def __init__(self, protocol: Connection) -> None:
        super().__init__(protocol)
        self._protocol = protocol

    def feed_data(self, data: Any) -> None:  # bytes, which is all that uvicorn gives it
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as ended:
            self._protocol.parser = _Parser(self._protocol)
            head = self._protocol.head_without_upgrade(self)
            self._protocol.parser.feed_data(head + data[ended.args[0] :])


_logger = logging.getLogger("langchain_kv")


class Outbox:
    """The answers of all connections that became ready in one turn of the event loop, sent together at its end.

    The first one wakes the client, which costs more than everything else about sending; the others find it awake. A
    large one goes at once: the client reads it while the others are made.
    """

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def add(self, loop: asyncio.AbstractEventLoop, send: Callable[[], None], size: int) -> None:
        """Call ``send``, for an answer of ``size`` bytes, when all that is ready to run has run."""
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append(send)
        if size >= LARGE_ANSWER_BYTES:
            self._send()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for send in waiting:
            try:
                send()
            except Exception:  # it is the others' turn all the same
                _logger.exception("An answer could not be sent.")


class _Event:
    """In place of the event that uvicorn's own cycles wait for: nobody waits for it."""

    def set(self) -> None:
        pass


class _Cycle:
    """An ordinary command and its answer, with what uvicorn looks at of each of its cycles."""

    message_event: Final = _Event()

    def __init__(self, command: Command) -> None:
        self.command = command
        self.parts: list[bytes] = []
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False
        self.status = 500
        self.reply = b"{}"


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with a short way, and with a bound for a request's head, which it and its parser have not."""

    _head_bytes: int | None = None  # of a head that is not complete yet
    _gathering: _Cycle | None = None  # the body of an ordinary command
    _default_headers: list[tuple[bytes, bytes]] | None = None  # of which _head is the text
    _head: bytes = b""

    def __init__(self, *args: Any, outbox: Outbox, **options: Any) -> None:
        super().__init__(*args, **options)
        self._outbox = outbox
        self.parser = _Parser(self)
        self._ordinary_command = getattr(self.config.app, "ordinary_command", None)

    # -- reading --------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._head_bytes = None
        if not self.parser.should_upgrade():
            command = self._short_way()
            if command is None:
                self._go_the_long_way()
            else:
                self.headers = []  # from here on nothing of the request shows the token
                self.cycle = self._gathering = _Cycle(command)  # type: ignore[assignment]
        elif self.parser.get_method() == b"CONNECT":
            self.send_400_response("This server is no proxy: send no CONNECT.")
            raise ValueError("a tunnel is not supported")  # which stops the parser

    def _short_way(self) -> Command | None:
        is_free = self.cycle is None or self.cycle.response_complete
        if self._ordinary_command is None or not is_free or self.parser.get_method() != b"POST":
            return None
        if self.parser.get_http_version() != "1.1" or not self.parser.should_keep_alive():
            return None
        command: Command | None = self._ordinary_command(self.url, self.headers)
        return command

    def _go_the_long_way(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)  # the list that the scope has
        self.scope["extensions"] = {"langchain_kv": {"hang_up": self.transport.close}}
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._gathering is not None:
            self._gathering.parts.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        cycle, self._gathering = self._gathering, None
        if cycle is not None:
            task = self.loop.create_task(self._carry_out(cycle))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif not self.parser.should_upgrade():
            super().on_message_complete()

    def head_without_upgrade(self, parser: httptools.HttpRequestParser) -> bytes:
        """Return the head of the request that is being read, without the offer of another protocol."""
        lines = [b"%b %b HTTP/%b" % (parser.get_method(), self.url, parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                kept = [option for option in value.split(b",") if option.strip().lower() not in _UPGRADES]
                lines.append(b"%b: %b" % (name, b",".join(kept)))
            elif name not in _UPGRADES:
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_bytes is None or self.transport.is_closing():
            return
        # The part that a head begins in is not counted: it may hold the end of an earlier request.
        self._head_bytes = self._head_bytes + len(data) if self._head_bytes else 1
        if self._head_bytes > HEAD_MAX_BYTES:
            self.send_400_response("The request's headers are too long.")

    # -- answering ------------------------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    async def _carry_out(self, cycle: _Cycle) -> None:
        try:
            cycle.status, cycle.reply = await cycle.command(b"".join(cycle.parts))
            if self.flow.write_paused and not cycle.disconnected:
                await self.flow.drain()
        except BaseException as error:  # the server ends, and waits no longer
            _logger.error("A command was cut off.", exc_info=error)
            cycle.keep_alive = False
        self._outbox.add(self.loop, partial(self._answer, cycle), len(cycle.reply))

    def _answer(self, cycle: _Cycle) -> None:
        """Send the answer, unless its client has left. Until then its request counts as under way."""
        if cycle.disconnected or self.transport.is_closing():
            return
        cycle.response_complete = True
        head, size = self._reply_head(cycle.status), len(cycle.reply)
        ending = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(b"%bcontent-length: %d\r\n%b%b" % (head, size, ending, cycle.reply))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _reply_head(self, status: int) -> bytes:
        """Return the first line and the headers that do not depend on the reply; they change once a second."""
        if status != 200:
            return STATUS_LINE[status] + self._common_headers()
        if self._default_headers is not self.server_state.default_headers:
            self._default_headers = self.server_state.default_headers
            self._head = STATUS_LINE[200] + self._common_headers()
        return self._head

    def _common_headers(self) -> bytes:
        headers = [*self.server_state.default_headers, (b"content-type", b"application/json;charset=UTF-8")]
        return b"".join(b"%b: %b\r\n" % header for header in headers)
