"""The layer around a test's server: it writes down what comes in, and fails as it was told. Knows ASGI, no commands."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from langchain_kv.errors import DataAPIError, EngineBusyError
from langchain_kv.limits import BODY_MAX_BYTES
from langchain_kv.server.commands.reply import failed

__all__ = [
    "Fault",
    "Faults",
    "Received",
    "code_answer",
    "kept_in",
    "read_request",
    "replayed",
    "send_answer",
    "status_answer",
]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

_NAME: Final = re.compile(rb'\s*{\s*"(\w*)"')
_IDLE_TIMEOUT_S: Final = 10.0


class Received(NamedTuple):
    """A request that came in, whatever became of it.

    Attributes:
        command: the name of the command, empty where the body has none.
        path: the path of the URL: ``/v1/KEYSPACE/COLLECTION`` for most commands.
        body: the whole body, or nothing of one that is over the server's limit.
    """

    command: str
    path: str
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the command, parsed.

        Raises:
            ValueError: the body is not JSON.
        """
        fields: dict[str, Any] = json.loads(self.body)[self.command]
        return fields


@dataclass
class Fault:
    """What happens to some requests in place of, or before, the right answer.

    Attributes:
        times: how many more requests it meets; None for all of them.
        command: the one command that it meets, or None for any request.
        answer: the status, the headers and the body that are sent, or None.
        drop: whether the connection is closed without an answer.
        delay_s: seconds to wait first.
        applied: whether the request is carried out before anything else happens.
    """

    times: int | None
    command: str | None
    answer: tuple[int, list[tuple[bytes, bytes]], bytes] | None
    drop: bool
    delay_s: float
    applied: bool


def status_answer(status: int, retry_after_s: int | None) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return the answer of something in front of the Data API: a status, and no body."""
    return status, [] if retry_after_s is None else [(b"retry-after", b"%d" % retry_after_s)], b""


def code_answer(code: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return the Data API's answer to a command that failed with this code."""
    reply = failed(DataAPIError.of(code, f"The test asked for the error {code}."))
    return reply.http_status, [(b"content-type", b"application/json;charset=UTF-8")], reply.encoded()


class Faults:
    """An ASGI application around another one. What is not ASGI is for the test's thread.

    Attributes:
        received: every request since ``clear``, in the order of arrival.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._faults: list[Fault] = []
        self.received: list[Received] = []
        self._lock = threading.Condition()
        self._in_flight = 0
        self._stalled: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def add(self, fault: Fault) -> None:
        """Let requests meet a fault; where several wait, each request meets the first that is for it."""
        with self._lock:
            self._faults.append(fault)

    def heal(self) -> None:
        """Remove every fault. Requests that are held up stay so."""
        with self._lock:
            self._faults.clear()

    def clear(self) -> None:
        """Remove every fault, hang up on requests that are held up, await the others, and forget what came in.

        Raises:
            EngineBusyError: a request did not end within 10 seconds.
        """
        with self._lock:
            self._faults.clear()
            for stalled, loop in self._stalled.items():
                loop.call_soon_threadsafe(stalled.set)
            if not self._lock.wait_for(lambda: not self._in_flight, _IDLE_TIMEOUT_S):
                raise EngineBusyError(
                    f"A request to the test's server has not ended within {_IDLE_TIMEOUT_S:.0f} s: end what the test"
                    f" started before the test ends."
                )
            self.received.clear()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        with self._lock:
            self._in_flight += 1
        try:
            await self._carry_out(scope, receive, send)
        finally:
            with self._lock:
                self._in_flight -= 1
                self._lock.notify_all()

    async def _carry_out(self, scope: Any, receive: Receive, send: Send) -> None:
        messages, is_whole = await read_request(scope, receive)
        body = b"".join(message.get("body", b"") for message in messages) if is_whole else b""
        named = _NAME.match(body)
        received = Received(named[1].decode() if named else "", scope["path"], body)
        fault = self._take(received)
        replay = replayed(messages, receive)
        if fault is None:
            await self._app(scope, replay, send)
            return
        reply: list[Message] = []
        if fault.applied:
            await self._app(scope, replay, kept_in(reply))
        if not await self._hold_up(fault.delay_s, receive) or fault.drop:
            await _hang_up(scope, receive)
        elif fault.answer is not None:
            await send_answer(fault.answer, send)
        elif fault.applied:
            for message in reply:
                await send(message)
        else:
            await self._app(scope, replay, send)

    def _take(self, received: Received) -> Fault | None:
        """Write a request down, and return the fault that it meets."""
        with self._lock:
            self.received.append(received)
            fault = next((one for one in self._faults if one.command in (None, received.command)), None)
            if fault is not None and fault.times is not None:
                fault.times -= 1
                if not fault.times:
                    self._faults.remove(fault)
            return fault

    async def _hold_up(self, delay_s: float, receive: Receive) -> bool:
        """Wait; return whether the request goes on: its client is there, and ``clear`` was not called."""
        if not delay_s:
            return True
        ended = asyncio.Event()
        with self._lock:
            self._stalled[ended] = asyncio.get_running_loop()
        waits = {asyncio.create_task(ended.wait()), asyncio.create_task(_disconnected(receive))}
        try:
            done, _ = await asyncio.wait(waits, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            with self._lock:
                del self._stalled[ended]
            for wait in waits:
                wait.cancel()
        return not done


async def read_request(scope: Any, receive: Receive) -> tuple[list[Message], bool]:
    """Return the messages of a request's body, and whether they are all of it: what is too large is left to the app."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    if length.isdigit() and int(length) > BODY_MAX_BYTES:
        return [], False
    messages: list[Message] = []
    size = 0
    while size <= BODY_MAX_BYTES:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            return messages, True
    return messages, False


def replayed(messages: list[Message], receive: Receive) -> Receive:
    """Return what receives these messages once more, and then what follows."""
    left = iter(messages)

    async def receive_again() -> Message:
        return next(left, None) or await receive()

    return receive_again


def kept_in(reply: list[Message]) -> Send:
    """Return what keeps the messages of an answer instead of sending them."""

    async def keep(message: Message) -> None:
        reply.append(message)

    return keep


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _hang_up(scope: Any, receive: Receive) -> None:
    scope["extensions"]["langchain_kv"]["hang_up"]()
    await _disconnected(receive)  # without an answer, uvicorn would send one of its own before that


async def send_answer(answer: tuple[int, list[tuple[bytes, bytes]], bytes], send: Send) -> None:
    """Send a status, headers and a body."""
    status, headers, body = answer
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
