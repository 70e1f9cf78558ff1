"""Every fault x every operation, sync and async, while it passes, lasts or meets a part: what the user is owed.

``run(cell)`` tries one cell and says what was wrong. The tests run each cell once; ``python -m faults.matrix`` runs
each several times and writes the table of docs/reliability.md (`make reliability`).

No cell waits for a deadline: the client's clock is put forward with every failure, so that a fault that lasts is met
by three tries, or by one where it has to be waited for. Only requests that get no answer are waited for, a few
hundredths of a second each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any, Literal, NamedTuple
from unittest.mock import patch

from faults.operations import (
    IN_MAX,
    INSERT_MANY_MAX,
    NEW,
    OLD,
    OPERATIONS,
    PAGE_SIZE,
    Operation,
    Outcome,
    keys_of,
    perform,
)
from faults.proxy import Answer, Door, Fault, Misbehaving, Request, api_error, errors
from langchain_kv import limits
from langchain_kv.backends.dataapi import retry, verbs
from langchain_kv.backends.dataapi.backend import DataAPIBackend
from langchain_kv.backends.dataapi.client import Pool
from langchain_kv.errors import (
    AuthError,
    BadReplyError,
    ConnectError,
    DataAPIError,
    LimitError,
    PartialWriteError,
    RequestTimeoutError,
    StoreError,
    TransportError,
)

__all__ = ["CELLS", "FAULTS", "Case", "Cell", "Verdict", "run"]

HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
TOKEN = "AstraCS:marked-token"

DEADLINE_S = 5.4
STEP_S = 2.0
"""What each failure takes by the client's clock: three tries fit in the deadline."""
SLOW_STEP_S = 6.0
"""The same for faults that are waited for: one try."""
TIMEOUT_S = 1.0
SLOW_TIMEOUT_S = 0.04

Duration = Literal["passes", "lasts", "lasts for a part"]


class Case(NamedTuple):
    """A fault, and how the client is to take it.

    Attributes:
        fault: what one request meets, or what each new connection does; ``idle`` ends the idle ones once.
        errors: what is raised where it lasts; nothing: it is never noticed.
        applied: what the error may say of a write that met it.
        retryable: what the error is to say.
        passes_after: how often it is met where it passes; 0 where it never does.
        is_slow: whether it shows only when a request's time is over.
        is_warm: whether it meets a client that has idle connections.
        renews: whether it is a refused token, and the fault passes with another one.
    """

    fault: Answer | Fault | Door | Literal["idle"]
    errors: tuple[type[StoreError], ...]
    applied: tuple[bool | None, ...] = (None,)
    retryable: bool = True
    passes_after: int = 2
    is_slow: bool = False
    is_warm: bool = False
    renews: bool = False

    @property
    def is_scripted(self) -> bool:
        return isinstance(self.fault, Answer | Fault)


def _code(code: str, scope: str = "DATABASE", *, applied: bool = False) -> Answer:
    return errors(api_error(code, scope=scope))._replace(applied=applied)


_401 = errors(api_error("UNAUTHENTICATED_REQUEST", scope="SECURITY", family="REQUEST"))._replace(status=401)

FAULTS: dict[str, Case] = {
    "refuses": Case("shut", (ConnectError,), (False,)),
    "stops listening": Case("shut", (TransportError,), (False, None), is_warm=True),
    "accepts and is deaf": Case("deaf", (RequestTimeoutError,), passes_after=1, is_slow=True),
    "queue of connections full": Case("full", (ConnectError,), (False,), passes_after=1, is_slow=True),
    "resets each connection at once": Case("slammed", (TransportError,), (False, None)),
    "closes idle connections": Case("idle", (), is_warm=True),
    "closes after each answer": Case(Fault("hang up", applied=True), ()),
    "resets, not applied": Case(Fault("reset"), (TransportError,)),
    "resets, applied": Case(Fault("reset", applied=True), (TransportError,)),
    "stalls, not applied": Case(Fault("stall"), (RequestTimeoutError,), passes_after=1, is_slow=True),
    "stalls, applied": Case(Fault("stall", applied=True), (RequestTimeoutError,), passes_after=1, is_slow=True),
    "stalls in the middle of the reply": Case(
        Fault("stall in the middle", applied=True), (RequestTimeoutError,), passes_after=1, is_slow=True
    ),
    "drips": Case(Fault("drip", applied=True), (RequestTimeoutError,), passes_after=1, is_slow=True),
    "truncates": Case(Fault("truncate", applied=True), (BadReplyError,)),
    "garbles": Case(Fault("garble", applied=True), (BadReplyError,)),
    "empty 200": Case(Answer(200, applied=True), (BadReplyError,)),
    "page at 200": Case(Answer(200, HTML), (BadReplyError,)),
    "429": Case(Answer(429, b"slow down"), (BadReplyError,), (False,)),
    "429, Retry-After 0 s": Case(Answer(429, b"", (("Retry-After", "0"),)), (BadReplyError,), (False,)),
    "429, Retry-After 1 h": Case(
        Answer(429, b"", (("Retry-After", "3600"),)), (BadReplyError,), (False,), passes_after=0
    ),
    "502 page": Case(Answer(502, HTML), (BadReplyError,)),
    "502 page, applied": Case(Answer(502, HTML, applied=True), (BadReplyError,)),
    "503 page": Case(Answer(503, HTML), (BadReplyError,)),
    "504, applied": Case(Answer(504, applied=True), (BadReplyError,)),
    "401, then a fresh token": Case(_401, (AuthError,), (False,), retryable=False, passes_after=1, renews=True),
    "403 page": Case(Answer(403, HTML), (BadReplyError,), (False,), retryable=False, passes_after=0),
    "413, empty": Case(Answer(413), (LimitError,), (False,), retryable=False, passes_after=0),
    "passing code": Case(_code("UNAVAILABLE_DATABASE"), (DataAPIError,)),
    "passing code, applied": Case(_code("TIMEOUT_WRITING_DATA", applied=True), (DataAPIError,)),
    "unforeseen code": Case(
        _code("UNEXPECTED_SERVER_ERROR", "", applied=True), (DataAPIError,), retryable=False, passes_after=1
    ),
}


class Cell(NamedTuple):
    """One experiment: names of FAULTS and OPERATIONS, sync or async, and how long the fault lasts."""

    fault: str
    operation: str
    mode: str
    duration: Duration

    def __str__(self) -> str:
        return "-".join(self)


def _cells() -> Iterator[Cell]:
    for fault, case in FAULTS.items():
        for name, operation in OPERATIONS.items():
            for mode in ("sync", "async"):
                if case.passes_after and not operation.is_only_in_part:
                    yield Cell(fault, name, mode, "passes")
                if case.fault != "idle" and not operation.is_only_in_part:
                    yield Cell(fault, name, mode, "lasts")
                if case.is_scripted and operation.part is not None:
                    yield Cell(fault, name, mode, "lasts for a part")


CELLS = list(_cells())


class Verdict(NamedTuple):
    """What came of a cell.

    Attributes:
        outcome: ``success``, or the name of the error.
        applied: what the error said; None where there is none, too.
        wrong: what is not as it should be, by what it concerns: ``outcome``, ``applied``, ``stored``.
    """

    outcome: str
    applied: bool | None
    wrong: list[tuple[str, str]]


def run(cell: Cell) -> Verdict:
    """Try the cell on a server and a client of its own."""
    case, operation = FAULTS[cell.fault], OPERATIONS[cell.operation]
    with Misbehaving() as server:
        operation.prepare(server)
        before = operation.state(server)
        with _client(cell, server) as (backend, begin):
            outcome = perform(backend, operation, cell.mode, begin, is_warm=case.is_warm)
    # The server has ended: what it was still at is done, and the state is final.
    trial = _Trial(cell, case, operation, server, before, outcome)
    trial.judge()
    return Verdict(
        type(outcome.error).__name__ if outcome.error else "success",
        getattr(outcome.error, "applied", None),
        trial.wrong,
    )


# -- the experiment -----------------------------------------------------------------------------------------------


@contextmanager
def _client(cell: Cell, server: Misbehaving) -> Iterator[tuple[DataAPIBackend, Callable[[], None]]]:
    """Give a backend that is patient for a few tries, and a function that lets the fault begin."""
    case, operation = FAULTS[cell.fault], OPERATIONS[cell.operation]
    timeout_s = SLOW_TIMEOUT_S if case.is_slow else TIMEOUT_S
    failures, skipped_s, tokens = 0, 0.0, iter(range(100))

    def fail() -> None:
        nonlocal failures, skipped_s
        failures += 1
        if cell.duration != "passes":
            skipped_s += SLOW_STEP_S if case.is_slow else STEP_S
        elif failures == case.passes_after and not case.is_scripted:
            server.set_door("open")

    def script(request: Request) -> Answer | Fault | None:
        is_met = cell.duration != "lasts for a part" or operation.part is None or operation.part(request)
        if cell.duration == "passes":
            is_met = request.headers["token"].endswith("0") if case.renews else failures < case.passes_after
        if not is_met:
            return None
        fail()
        assert isinstance(case.fault, Answer | Fault)
        return case.fault

    def begin() -> None:
        if case.is_scripted:
            server.script = script
        elif case.fault == "idle":
            server.close_idle()
        else:
            server.close_idle()
            server.set_door(case.fault)  # type: ignore[arg-type]

    post = Pool.post

    async def counted(*arguments: Any, **options: Any) -> Any:
        try:
            return await post(*arguments, **options)
        except StoreError:
            if not case.is_scripted:
                fail()
            raise

    with ExitStack() as patches:
        patches.enter_context(patch.object(retry, "monotonic", lambda: monotonic() + skipped_s))
        patches.enter_context(patch.multiple(retry, FIRST_DELAY_S=0.0005, DELAY_MAX_S=0.002))
        patches.enter_context(patch.object(verbs, "ADMIN_TIMEOUT_S", timeout_s))
        patches.enter_context(patch.multiple(limits, IN_MAX=IN_MAX, INSERT_MANY_MAX=INSERT_MANY_MAX))
        patches.enter_context(patch.object(Pool, "post", counted))
        yield (
            DataAPIBackend(
                server.url,
                collection="c",
                keyspace="k",
                token=lambda: f"{TOKEN}-{next(tokens)}",
                request_timeout_s=timeout_s,
                deadline_s=DEADLINE_S,
            ),
            begin,
        )


# -- the judgement ------------------------------------------------------------------------------------------------


class _Trial:
    """One cell that was tried; it judges by what the server did and holds, never by what the client says of it."""

    def __init__(
        self,
        cell: Cell,
        case: Case,
        operation: Operation,
        server: Misbehaving,
        before: dict[str, Any],
        outcome: Outcome,
    ) -> None:
        self.cell, self.case, self.operation, self.outcome, self.before = cell, case, operation, outcome, before
        self.after = operation.state(server)
        self.wanted = operation.wanted
        self.met = {key for request, fault in server.met if fault is not None for key in keys_of(request)}
        self.answered = {key for request, fault in server.met if fault is None for key in keys_of(request)}
        self.is_met = any(fault is not None for _, fault in server.met)
        # On a busy machine a request without a fault may take longer than those with one are given here: there, a
        # connection may not be made in time, and what the server answered need not have been heard.
        self.is_timely = not case.is_slow
        self.too_late: tuple[type[StoreError], ...] = (ConnectError,) if case.is_slow else ()
        self.wrong: list[tuple[str, str]] = []

    def expect(self, holds: bool, concerns: str, text: str) -> None:
        if not holds:
            self.wrong.append((concerns, text))

    def judge(self) -> None:
        error = self.outcome.error
        must_fail = bool(self.case.errors) and (
            self.cell.duration == "lasts" or (self.cell.duration == "lasts for a part" and self.is_met)
        )
        self.expect((error is not None) == must_fail, "outcome", f"it ended with {error!r}")
        if error is None:
            wrong_result = self.operation.wrong_result(self.outcome.result)
            self.expect(wrong_result is None, "outcome", str(wrong_result))
            self.expect_stored(self.wanted, set(self.wanted), "written")
        elif not isinstance(error, StoreError):
            self.expect(False, "outcome", f"a foreign exception escaped: {error!r}")
        else:
            self.judge_error(error)
        self.expect_page_once()

    def judge_error(self, error: StoreError) -> None:
        leaves = list(error.errors.values()) if isinstance(error, PartialWriteError) else [error]
        for leaf in leaves:
            unsent = (*self.too_late, *((RequestTimeoutError,) if len(leaves) > 1 else ()))
            is_right = isinstance(leaf, self.case.errors) or (isinstance(leaf, unsent) and leaf.applied is False)
            self.expect(is_right, "outcome", f"the error is {leaf!r}")
        self.expect(error.retryable is self.case.retryable, "outcome", f".retryable is {error.retryable}")
        for secret in (TOKEN, OLD, NEW):
            self.expect(secret not in f"{error!r}{vars(error)!r}", "outcome", f"it holds {secret}")
        if not self.wanted:
            self.expect(error.applied is False, "applied", f"a read's .applied is {error.applied}")
        elif isinstance(error, PartialWriteError):
            self.judge_parts(error)
        else:
            self.judge_whole(error)

    def judge_whole(self, error: StoreError) -> None:
        """An error that names no keys speaks of all of them."""
        self.expect(error.applied is not True, "applied", "an error of a whole write says that it happened")
        if error.applied is False:
            self.expect_stored(self.before, set(self.wanted), "unwritten")
        allowed: set[bool | None] = {*self.case.applied, *((False,) if self.too_late and not self.is_met else ())}
        if self.operation.options and self.cell.duration == "lasts for a part":
            allowed = {None}  # the collection was deleted, and not created again
        self.expect(error.applied in allowed, "applied", f".applied is {error.applied}, not of {allowed}")
        done = self.answered - self.met if len(self.wanted) > 1 and self.is_timely else set()
        self.expect(not done, "applied", f"the error does not say that these were written: {sorted(done)[:3]}")
        self.expect_known_states()

    def judge_parts(self, error: PartialWriteError) -> None:
        """Each key is named once, and rightly."""
        written, unwritten, unknown = set(error.written), set(error.unwritten), set(error.unknown)
        named = [*error.written, *error.unwritten, *error.unknown]
        self.expect(sorted(named) == sorted(self.wanted), "applied", f"it names {named}")
        self.expect(set(error.errors) == unwritten | unknown, "applied", "its errors are not of the keys that failed")
        self.expect(error.applied is (None if written or unknown else False), "applied", f".applied is {error.applied}")
        self.expect_stored(self.wanted, written, "written")
        self.expect_stored(self.before, unwritten, "unwritten")
        self.expect_known_states()
        if self.case.is_scripted:
            self.expect(written <= self.answered, "applied", f"never answered: {sorted(written - self.answered)[:3]}")
            unmet = unknown - self.met if self.is_timely else set()
            self.expect(not unmet, "applied", f"unknown without a fault: {sorted(unmet)[:3]}")
        if None not in self.case.applied:
            self.expect(not unknown, "applied", f"unknown, where it is known: {sorted(unknown)[:3]}")
        elif False not in self.case.applied and self.case.is_scripted:
            left = self.met - self.answered
            self.expect(left <= unknown, "applied", f"taken for known: {sorted(left - unknown)[:3]}")

    def expect_stored(self, right: dict[str, Any], keys: set[str], word: str) -> None:
        wrong = sorted(key for key in keys if self.after[key] != right[key])
        self.expect(not wrong, "stored", f"{word}, says the client of {wrong[:3]}, and it is not so")

    def expect_known_states(self) -> None:
        """Nothing but the old and the new is ever stored; a collection may be gone between the two."""
        for key, value in self.after.items():
            right = (self.before[key], self.wanted[key], *((False,) if self.operation.options else ()))
            self.expect(value in right, "stored", f"{key} holds something else")

    def expect_page_once(self) -> None:
        """A scan yields nothing twice, and before it fails all pages that came."""
        if not self.operation.verb.startswith("scan"):
            return
        seen = [item if isinstance(item, str) else item[0] for item in self.outcome.result]
        self.expect(len(set(seen)) == len(seen), "outcome", "a key was yielded twice")
        if self.cell.duration == "lasts for a part" and self.outcome.error is not None:
            self.expect(len(seen) == PAGE_SIZE, "outcome", f"{len(seen)} keys came before the error")


if __name__ == "__main__":
    from faults.matrix_table import main

    sys.exit(main())
