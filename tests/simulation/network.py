"""A network that exists only in virtual time: it stands in for the client's HTTP, and loses, delays and repeats."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar
from random import Random
from typing import Any, Literal, NamedTuple

from langchain_kv.backends.dataapi.client import Pool, Reply
from langchain_kv.backends.dataapi.retry import Attempt
from langchain_kv.errors import BadReplyError, ConnectError, RequestTimeoutError, StoreError, TransportError
from simulation.history import History, Operation
from simulation.model_server import Command, ModelServer, failure

__all__ = ["CURRENT", "FAULTS", "Conditions", "Fault", "Network"]

CURRENT: ContextVar[Operation] = ContextVar("CURRENT")
"""The call that a request belongs to: tasks that the client starts inherit it."""


class Fault(NamedTuple):
    """What happens to a request.

    Attributes:
        arrives: whether it reaches the server, and if "late", long after the client gave it up, perhaps twice.
        shown: what the client gets: an error, a reply, or None for no answer at all.
        hasty: whether the client gets it at once, while a request that arrives is still being carried out.
        retry_after_s: the seconds that the reply asks to wait.
    """

    arrives: Literal["no", "yes", "late"]
    shown: type[StoreError] | Reply | None
    hasty: bool = False
    retry_after_s: float | None = None


def _refusal(code: str, *, status: int = 200, family: str = "SERVER", scope: str = "DATABASE") -> Reply:
    return Reply(status, json.dumps({"errors": [failure(code, family=family, scope=scope)]}).encode())


_PAGE = b"<html><head><title>502 Bad Gateway</title></head></html>"
FAULTS: dict[str, Fault] = {
    "connection refused": Fault("no", ConnectError),
    "reset before it was read": Fault("no", TransportError),
    "request lost": Fault("no", None),
    "429": Fault("no", Reply(429, b"")),
    "429 with Retry-After": Fault("no", Reply(429, b""), retry_after_s=1.0),
    "503": Fault("no", Reply(503, b"")),
    "401": Fault("no", _refusal("UNAUTHENTICATED_REQUEST", status=401, family="REQUEST", scope="SECURITY")),
    "unavailable": Fault("no", _refusal("UNAVAILABLE_DATABASE")),
    "unforeseen fault": Fault("no", _refusal("UNEXPECTED_SERVER_ERROR", scope="")),
    "refused with a new code": Fault("no", _refusal("A_NEW_CODE", family="REQUEST", scope="DOCUMENT")),
    "reset after it was carried out": Fault("yes", TransportError),
    "reset while it is carried out": Fault("yes", TransportError, hasty=True),
    "reply lost": Fault("yes", None),
    "reply cut": Fault("yes", BadReplyError),
    "reply garbled": Fault("yes", Reply(200, b'{"status": {"insertedI')),
    "502 after it was carried out": Fault("yes", Reply(502, _PAGE)),
    "502 while it is carried out": Fault("yes", Reply(502, _PAGE), hasty=True),
    "timeout of the database, carried out": Fault("yes", _refusal("TIMEOUT_WRITING_DATA")),
    "unforeseen fault, carried out": Fault("yes", _refusal("UNEXPECTED_SERVER_ERROR", scope="")),
    "late": Fault("late", None),
    "late after a reset": Fault("late", TransportError, hasty=True),
    "late after a 503": Fault("late", Reply(503, b""), hasty=True),
}


class Conditions(NamedTuple):
    """How bad it is.

    Attributes:
        share: of the requests that meet a fault.
        outage_s: from when until when nearly every request does.
        kinds: the faults that occur.
        delay_s: the mean time on the way, in each direction.
    """

    share: float
    outage_s: tuple[float, float]
    kinds: tuple[str, ...]
    delay_s: float


class Network(Pool):
    """Stands between the stores of one history and their server: a ``Pool`` that sends in another way."""

    def __init__(self, seed: object, conditions: Conditions, server: ModelServer, history: History) -> None:
        super().__init__()
        self._seed = seed
        self._conditions = conditions
        self._server = server
        self._history = history
        self._same: Counter[tuple[Any, ...]] = Counter()
        self._under_way: set[asyncio.Task[bytes]] = set()

    async def drain(self) -> None:
        """Return when everything that was sent has arrived and is carried out."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    # -- what the client uses -------------------------------------------------------------------------------------

    async def post(self, url: object, body: bytes, headers: Mapping[str, str], attempt: Attempt) -> Reply:
        """As ``Pool.post``."""
        operation = CURRENT.get()
        ((name, fields),) = json.loads(body).items()
        dice = self._dice_of(operation, name, body)
        command = Command(name, fields, dice, self._changed_by(operation), self._trouble_of(operation), self._share())
        self._history.requests += 1
        if operation.returned is not None:
            self._history.complaints.append(f"call {operation.step.number} sent a {name} after it had returned")
        fault = self._fault(dice)
        if fault is not None:
            self._history.faults[fault] += 1
            operation.faults.append(f"{name} {fault}")
        is_plain = False
        try:
            async with asyncio.timeout(attempt.timeout_s):
                reply = await self._carry(command, FAULTS[fault] if fault else None, attempt)
            is_plain = fault is None
            return reply
        except TimeoutError:
            raise RequestTimeoutError(f"No answer within {attempt.timeout_s:.3g} s.") from None
        finally:
            if not is_plain:
                operation.troubled.update(command.keys)

    # -- the way of a request -------------------------------------------------------------------------------------

    async def _carry(self, command: Command, fault: Fault | None, attempt: Attempt) -> Reply:
        delay_s = command.dice.expovariate(1 / self._conditions.delay_s)
        if fault is None:
            body = await asyncio.shield(self._deliver(command, delay_s))
            await asyncio.sleep(command.dice.expovariate(1 / self._conditions.delay_s))
            return Reply(200, body)
        if fault.arrives == "late":
            for _ in range(command.dice.choice((1, 1, 2))):
                self._deliver(command, attempt.timeout_s * command.dice.uniform(1, 8))
        if fault.arrives == "yes":
            delivery = self._deliver(command, delay_s)
            if not fault.hasty:
                await asyncio.shield(delivery)
        await asyncio.sleep(delay_s)
        if fault.shown is None:
            await asyncio.Event().wait()  # until the client's own timeout
        if isinstance(fault.shown, Reply):
            attempt.retry_after_s = fault.retry_after_s
            return fault.shown
        assert fault.shown is not None
        # The real pool knows: the client sends such a request again at once.
        attempt.is_stale = fault.shown is TransportError and command.dice.random() < 0.5
        raise fault.shown("The simulated network failed.")

    def _deliver(self, command: Command, delay_s: float) -> asyncio.Task[bytes]:
        """Let a request reach the server, whatever becomes of who sent it."""

        async def deliver() -> bytes:
            await asyncio.sleep(delay_s)
            return await self._server.answer(command)

        task = asyncio.create_task(deliver())
        self._under_way.add(task)
        task.add_done_callback(self._arrived)
        return task

    def _arrived(self, task: asyncio.Task[bytes]) -> None:
        self._under_way.discard(task)
        error = task.exception()
        if error is not None:  # a request that the model does not understand
            self._history.complaints.append(f"the model server failed: {error!r}")

    def _dice_of(self, operation: Operation, name: str, body: bytes) -> Random:
        """Return the dice of one request, which other requests do not change."""
        request = (operation.step.number, name, body)
        self._same[request] += 1
        return Random(f"{self._seed} {request} {self._same[request]}")

    def _share(self) -> float:
        """The share of single documents that meet a fault."""
        return self._conditions.share / 2

    def _fault(self, dice: Random) -> str | None:
        conditions = self._conditions
        start_s, end_s = conditions.outage_s
        share = 0.95 if start_s <= asyncio.get_running_loop().time() < end_s else conditions.share
        return dice.choice(conditions.kinds) if dice.random() < share else None

    def _changed_by(self, operation: Operation) -> Any:
        def changed(key: str) -> None:
            operation.effects.setdefault(key, []).append(self._history.tick())

        return changed

    def _trouble_of(self, operation: Operation) -> Any:
        def trouble(name: str, key: str) -> None:
            self._history.faults[name] += 1
            operation.troubled.add(key)
            operation.faults.append(f"{key} {name}")

        return trouble
