"""HTTP/1.1 for an application, over httptools' parser, with bounds for what a client sends, holds up or leaves unread.

The requests of a connection are answered in their order, one at a time. A request is looked at as soon as its head is
there, so that one without the token is answered before its body comes. A body that nobody wants is thrown away, for a
while, so that a client that sends first and listens later sees the answer and no reset.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from email.utils import formatdate
from enum import Enum
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol
from urllib.parse import unquote

import httptools

from langchain_kv.limits import BODY_MAX_BYTES
from langchain_kv.server.http.pool import Pool

__all__ = ["HEAD_MAX_BYTES", "Answer", "Application", "Connection", "HttpRequest"]

HEAD_MAX_BYTES: Final = 64 * 1024
"""Bytes of a request's first line and headers: one with more is answered with HTTP 400."""

HEAD_S = 30.0
"""Seconds in which a new connection's first request, and any request that has begun, must have its headers complete."""

SLOW_S = 30.0
"""Seconds that a body may take beside those that SLOW_BYTES_S gives it: one that takes longer is answered with 408."""

SLOW_BYTES_S: Final = 16 * 1024
"""Bytes a second that the slowest client sends, or takes of an answer."""

IDLE_S = 75.0
"""Seconds after which a connection without a request is closed: more than the clients and proxies at hand wait."""

LINGER_S = 10.0
"""Seconds for which what nobody wants is read and thrown away."""

REST_MAX_BYTES: Final = 1024 * 1024
"""Bytes that are read and thrown away behind what is no HTTP."""

_JOIN_MAX_BYTES: Final = 64 * 1024  # copying a larger answer costs more than sending it in two parts
_PHRASES: Final = {each.value: each.phrase for each in HTTPStatus}
_OFFERS: Final = (b"upgrade", b"http2-settings")
_NO_HTTP: Final = "This is no valid request, or its first line and headers are over 64 KiB.\n"

_logger = logging.getLogger("langchain_kv")


class Answer(NamedTuple):
    """What goes back. Its headers need not say its length."""

    status: int
    body: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()


class _Step(Enum):
    NEW = 0
    READING = 1  # its head was looked at, its body is wanted
    RUNNING = 2
    ANSWERED = 3


class HttpRequest:
    """A request as the application sees it.

    Attributes:
        method: the method, in capital letters.
        path: the path of its URL, decoded, without the query.
        headers: by name in small letters; of a repeated one the first.
        body: the whole body, when ``Application.answer`` is called.
    """

    __slots__ = ("began_s", "body", "connection", "headers", "is_whole", "keeps_alive", "method", "parts", "path",
                 "refusal", "size", "step")  # fmt: skip

    def __init__(
        self, connection: Connection, method: str, path: str, headers: dict[bytes, bytes], keeps_alive: bool
    ) -> None:
        self.connection = connection
        self.method = method
        self.path = path
        self.headers = headers
        self.keeps_alive = keeps_alive
        self.body = b""
        self.parts: list[bytes] = []
        self.size = 0
        self.is_whole = False
        self.step = _Step.NEW
        self.began_s = 0.0
        self.refusal: Answer | None = None  # what the connection itself has against it

    def hang_up(self) -> None:
        """Close the connection at once; what is answered is not sent."""
        self.connection.abort()

    async def client_left(self) -> None:
        """Wait until the client has ended the connection, or will send nothing more."""
        await self.connection.left.wait()

    @property
    def waits_for_a_word(self) -> bool:
        """Whether its client sends the body when it is told to go on."""
        return not self.is_whole and self.headers.get(b"expect", b"").lower() == b"100-continue"


class Application(Protocol):
    """What answers requests."""

    def refuse(self, request: HttpRequest) -> Answer | None:
        """Return the answer to a request whose body need not be read; None to have it read."""

    async def answer(self, request: HttpRequest) -> Answer:
        """Return the answer to a request that was not refused and has its body."""


class Connection(asyncio.Protocol):
    """One client's connection.

    Args:
        pool: the connections that it is one of.
        application: answers its requests.

    Attributes:
        deadline_s: when, by the loop's clock, it is ended.
        left: set when it has ended, or its client sends nothing more.
    """

    def __init__(self, pool: Pool, application: Application) -> None:
        self._pool = pool
        self._application = application
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._is_in_head = False
        self._idle_bytes = 0  # that came without completing a head or belonging to a body
        self._receiving: HttpRequest | None = None  # the body is not complete yet
        self._requests: deque[HttpRequest] = deque()  # the first one is the one whose turn it is
        self._task: asyncio.Task[None] | None = None
        self._is_reading_paused = self._is_writing_paused = False
        self._has_ended = False  # no request can follow: what came is no HTTP, or came too slowly
        self._is_lost = False
        self.left = asyncio.Event()
        self.deadline_s = self._loop.time() + HEAD_S

    # -- life -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # of a socket
        self._pool.add(self)

    def eof_received(self) -> bool:
        """The client sends nothing more, and may still read: what came whole is answered, then the connection ends."""
        self.left.set()
        whole = [request for request in self._requests if request.is_whole]
        if not whole or self._has_ended:
            return False  # which closes it
        self._receiving = None
        self._requests = deque(whole)
        whole[-1].keeps_alive = False
        return True

    def connection_lost(self, _: Exception | None) -> None:
        self._is_lost = True
        self.left.set()
        if self._task is None:  # else it counts until its command has ended
            self._pool.remove(self)

    def abort(self) -> None:
        """End it at once, and the command that is under way if the server ends."""
        self._transport.abort()
        if self._pool.is_stopping and self._task is not None:
            self._task.cancel()

    def stop(self) -> None:
        """End it, or what is under way first."""
        if not self._requests or self._requests[0].step is _Step.ANSWERED:
            self._transport.close()

    def expire(self) -> None:
        """End it because its time is over; a body that came too slowly is answered first."""
        self.deadline_s = self._loop.time() + LINGER_S
        if self._requests and self._requests[0].step is _Step.READING and not self._has_ended:
            self._refuse(Answer(408))
        else:
            self._transport.abort()

    def pause_writing(self) -> None:
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        self._is_writing_paused = False
        self._go_on()

    # -- reading --------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._idle_bytes += len(data)
        if self._has_ended:
            if self._idle_bytes > REST_MAX_BYTES:
                self._transport.abort()
            return
        try:
            self._feed(data)
            is_bad = self._idle_bytes > HEAD_MAX_BYTES
        except httptools.HttpParserError:
            is_bad = True
        if is_bad:
            self._refuse(_text(400, _NO_HTTP))

    def _feed(self, data: bytes) -> None:
        """Parse. An offer of another protocol is passed over, as HTTP allows: Java's client always makes one.

        The parser takes a request with an offer to end at its head. A new one is given the head without the offer.
        """
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as ended:
                data = self._head_without_offer() + data[ended.args[0] :]
                self._parser = httptools.HttpRequestParser(self)

    def _head_without_offer(self) -> bytes:
        lines = [b"%b %b HTTP/%b" % (self._parser.get_method(), self._url, self._parser.get_http_version().encode())]
        for name, value in self._headers:
            if name == b"connection":
                kept = [option for option in value.split(b",") if option.strip().lower() not in _OFFERS]
                lines.append(b"%b: %b" % (name, b",".join(kept)))
            elif name not in _OFFERS:
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        """A request begins (the parser's word, as all that follow)."""
        self._url = b""
        self._headers = []
        self._head_bytes = 0
        self._is_in_head = True
        if not self._requests:
            self.deadline_s = self._loop.time() + HEAD_S

    def on_url(self, part: bytes) -> None:
        """Its URL, or a part."""
        self._url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or one behind a body in chunks, which nobody looks at."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes + len(self._url) > HEAD_MAX_BYTES:
            raise ValueError("the headers are too long")  # which stops the parser
        self._headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """Its head is complete."""
        method, path = self._parser.get_method().decode(), _path_of(self._url)
        if self._parser.should_upgrade():
            if method == "CONNECT":
                raise ValueError("a tunnel is not supported")
            return
        headers, self._headers = dict(reversed(self._headers)), []
        is_new = self._parser.get_http_version() == "1.1"
        if not is_new:
            headers.pop(b"expect", None)  # a client of HTTP/1.0 takes the word to go on for its answer
        keeps_alive = is_new and self._parser.should_keep_alive()
        request = self._receiving = HttpRequest(self, method, path, headers, keeps_alive)
        if _is_too_large(headers.get(b"content-length", b"")):
            request.refusal = Answer(413)
        self._requests.append(request)
        self._is_in_head = False
        self._idle_bytes = 0
        self._go_on()

    def on_body(self, part: bytes) -> None:
        """A part of its body."""
        self._idle_bytes = 0
        request = self._receiving
        if request is None or request.step is _Step.ANSWERED:
            return
        request.size += len(part)
        if request.size > BODY_MAX_BYTES:
            request.refusal = Answer(413)
            request.parts.clear()
            self._go_on()
        else:
            request.parts.append(part)
            if request.step is _Step.READING:
                self.deadline_s = request.began_s + SLOW_S + request.size / SLOW_BYTES_S

    def on_message_complete(self) -> None:
        """It is complete."""
        if self._receiving is not None:
            self._idle_bytes = 0
            self._receiving.is_whole = True
            self._receiving = None
            self._go_on()

    # -- answering ------------------------------------------------------------------------------------------------

    def _refuse(self, answer: Answer) -> None:
        """Refuse the request that is coming in, and read no other."""
        request, self._receiving = self._receiving, None
        if request is None:
            request = HttpRequest(self, "", "", {}, keeps_alive=False)
            self._requests.append(request)
        request.refusal, request.keeps_alive = answer, False
        self._has_ended = True
        if request.step is _Step.ANSWERED:
            self._end()
        self._go_on()

    def _go_on(self) -> None:
        """Do what can be done for the requests, in their order, until one has to wait."""
        while self._requests and not self._is_writing_paused and not self._transport.is_closing():
            request = self._requests[0]
            if request.step is _Step.RUNNING:
                break
            if request.step is _Step.ANSWERED:
                if not request.is_whole:
                    break
                self._requests.popleft()
                if not request.keeps_alive:
                    self._end()
                continue
            answer = self._begin(request) if request.step is _Step.NEW else request.refusal
            if answer is not None:
                self._send(request, answer)
            elif request.is_whole:
                self._run(request)
            else:
                break
        self._set_reading_paused(len(self._requests) > 1)

    def _begin(self, request: HttpRequest) -> Answer | None:
        """Look at the head of the request whose turn has come; return the answer if it is settled by that."""
        answer = request.refusal
        if request.method:  # not where it could not be parsed
            answer = self._application.refuse(request) or answer
        if answer is None:
            request.step = _Step.READING
            request.began_s = self._loop.time()
            self.deadline_s = request.began_s + SLOW_S
            self._pool.set_idle(self, False)
            if request.waits_for_a_word:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return answer

    def _set_reading_paused(self, is_paused: bool) -> None:
        if is_paused != self._is_reading_paused and not self._transport.is_closing():
            self._is_reading_paused = is_paused
            (self._transport.pause_reading if is_paused else self._transport.resume_reading)()

    def _run(self, request: HttpRequest) -> None:
        request.step = _Step.RUNNING
        request.body = b"".join(request.parts)
        request.parts.clear()
        self.deadline_s = math.inf
        self._task = self._loop.create_task(self._carry_out(request))

    async def _carry_out(self, request: HttpRequest) -> None:
        try:
            answer = await self._application.answer(request)
        except Exception as error:
            _logger.error("A request was cut off.", exc_info=error)
            answer, request.keeps_alive = Answer(500), False
        finally:
            self._task = None
            if self._is_lost:
                self._pool.remove(self)
        self._send(request, answer)
        self._go_on()

    def _send(self, request: HttpRequest, answer: Answer) -> None:
        """Send the answer, unless the client has left; end the connection if there is nothing to come."""
        if request.step is _Step.NEW and request.waits_for_a_word:
            request.keeps_alive = False  # its body may come, or not
        request.step = _Step.ANSWERED
        if self._transport.is_closing():
            return
        if self._pool.is_stopping:
            request.keeps_alive = False
        fields = b"".join([b"%b: %b\r\n" % header for header in answer.headers])
        ending = b"\r\n" if request.keeps_alive else b"connection: close\r\n\r\n"
        head = _first_lines(answer.status, int(time.time()))
        head = b"%b%bcontent-length: %d\r\n%b" % (head, fields, len(answer.body), ending)
        if request.method == "HEAD":
            self._transport.write(head)
        elif len(answer.body) <= _JOIN_MAX_BYTES:
            self._transport.write(head + answer.body)
        else:
            self._transport.writelines((head, answer.body))
        self._pool.set_idle(self, True)
        wait_s = LINGER_S if not request.is_whole else HEAD_S if self._is_in_head else IDLE_S
        self.deadline_s = self._loop.time() + wait_s + len(answer.body) / SLOW_BYTES_S
        if self._has_ended and not request.is_whole:
            self._end()

    def _end(self) -> None:
        """End the connection after the last answer, which a client that still sends can read."""
        self._requests.clear()
        if self._has_ended and self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()


@lru_cache(maxsize=16)
def _first_lines(status: int, now_s: int) -> bytes:
    """Return the first line of an answer and the date."""
    return f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\ndate: {formatdate(now_s, usegmt=True)}\r\n".encode()


def _text(status: int, text: str) -> Answer:
    return Answer(status, text.encode(), [(b"content-type", b"text/plain; charset=utf-8")])


def _path_of(url: bytes) -> str:
    """Return the path of a URL, decoded.

    Raises:
        HttpParserInvalidURLError: it has none.
    """
    raw: bytes = url.partition(b"?")[0] if url.startswith(b"/") else httptools.parse_url(url).path or b""
    path = raw.decode("utf-8", "replace")
    return unquote(path) if "%" in path else path


def _is_too_large(length: bytes) -> bool:
    digits = length.lstrip(b"0")  # which may be as many as a header holds
    return len(digits) > len(str(BODY_MAX_BYTES)) or int(digits or b"0") > BODY_MAX_BYTES
