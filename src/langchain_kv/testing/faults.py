"""The layer around a test's server: it writes down what comes in, and fails as it was told. Knows no commands."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from langchain_kv.errors import DataAPIError, EngineBusyError
from langchain_kv.server.commands.reply import failed
from langchain_kv.server.http.connections import Answer, Application, HttpRequest

__all__ = ["Fault", "Faults", "Received", "code_answer", "status_answer"]

_NAME: Final = re.compile(rb'\s*{\s*"(\w*)"')
_IDLE_TIMEOUT_S: Final = 10.0


class Received(NamedTuple):
    """A request that came in, whatever became of it.

    Attributes:
        command: the name of the command, empty where the body has none.
        path: the path of the URL: ``/v1/KEYSPACE/COLLECTION`` for most commands.
        body: the whole body.
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
        answer: what is sent, or None.
        drop: whether the connection is closed without an answer.
        delay_s: seconds to wait first.
        applied: whether the request is carried out before anything else happens.
    """

    times: int | None
    command: str | None
    answer: Answer | None
    drop: bool
    delay_s: float
    applied: bool


def status_answer(status: int, retry_after_s: int | None) -> Answer:
    """Return the answer of something in front of the Data API: a status, and no body."""
    return Answer(status, b"", [] if retry_after_s is None else [(b"retry-after", b"%d" % retry_after_s)])


def code_answer(code: str) -> Answer:
    """Return the Data API's answer to a command that failed with this code."""
    reply = failed(DataAPIError.of(code, f"The test asked for the error {code}."))
    return Answer(reply.http_status, reply.encoded(), [(b"content-type", b"application/json;charset=UTF-8")])


class Faults:
    """An application around another one. ``refuse`` and ``answer`` are the server's, the rest is for the test's thread.

    Attributes:
        received: every request since ``clear`` whose body came in whole, in the order of arrival.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
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

    def refuse(self, request: HttpRequest) -> Answer | None:
        """Refuse nothing by its head alone: what is refused is written down, too."""
        return None

    async def answer(self, request: HttpRequest) -> Answer:
        """Let a request meet its fault, or have it answered."""
        with self._lock:
            self._in_flight += 1
        try:
            return await self._meet(request)
        finally:
            with self._lock:
                self._in_flight -= 1
                self._lock.notify_all()

    async def _meet(self, request: HttpRequest) -> Answer:
        named = _NAME.match(request.body)
        fault = self._take(Received(named[1].decode() if named else "", request.path, request.body))
        if fault is None:
            return await self._carry_out(request)
        answer = await self._carry_out(request) if fault.applied else None
        if not await self._hold_up(fault.delay_s, request) or fault.drop:
            request.hang_up()
            return Answer(500)  # which nobody is there to see
        return fault.answer or answer or await self._carry_out(request)

    async def _carry_out(self, request: HttpRequest) -> Answer:
        return self._application.refuse(request) or await self._application.answer(request)

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

    async def _hold_up(self, delay_s: float, request: HttpRequest) -> bool:
        """Wait; return whether the request goes on: its client is there, and ``clear`` was not called."""
        if not delay_s:
            return True
        ended = asyncio.Event()
        with self._lock:
            self._stalled[ended] = asyncio.get_running_loop()
        waits = {asyncio.create_task(ended.wait()), asyncio.create_task(request.client_left())}
        try:
            done, _ = await asyncio.wait(waits, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            with self._lock:
                del self._stalled[ended]
            for wait in waits:
                wait.cancel()
        return not done
