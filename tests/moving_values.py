"""Values of every kind, for tests that move them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from itertools import cycle, islice

from langchain_kv import Backend, Found, Kind, Record
from langchain_kv.runtime.clock import now_ms

Open = Callable[..., Backend]
"""Opens a backend: in memory, in a file, in a SQL database, or over HTTP."""

IN_A_DAY_MS = 24 * 3_600_000

KINDS = [
    (b'{"n":1,"b":true,"x":[1.5,null,"\xc3\xa4"]}', Kind.JSON),
    (b"null", Kind.JSON),
    (b"true", Kind.JSON),
    (b"123456789012345678901234567890", Kind.JSON),
    (b'"text"', Kind.JSON),
    (base64.b64encode(b"text that is base64").join([b'"', b'"']), Kind.JSON),
    (b'{"$ref":1,"":2}', Kind.TEXT),
    (b'"\\ud800"', Kind.TEXT),
    (bytes(range(256)), Kind.BYTES),
    (b"", Kind.BYTES),
    (b"\t\r\n \t\r\n \t", Kind.BYTES),
    (b"\t\r\n \t\r\n\t{}", Kind.BYTES),
    (b'{"_id":"x"}', Kind.BYTES),
    (b'"an answer"', Kind.BODY_BLOB),
]
"""What stores write, and what one thing could be taken for another."""


def records(count: int) -> list[Record]:
    """Return records of every kind in turn, every second one with an expiry."""
    moment = now_ms() + IN_A_DAY_MS
    some = islice(cycle(KINDS), count)
    return [
        Record(f"key/{number:07}/\n ä", payload, kind, moment + number if number % 2 else None)
        for number, (payload, kind) in enumerate(some)
    ]


def contents(backend: Backend) -> dict[str, object]:
    """Return all that a backend has; JSON and its text are one kind."""
    return {
        key: (Kind.JSON if found.kind is Kind.TEXT else found.kind, found.value, found.expires_at_ms)
        if isinstance(found, Found)
        else found
        for page in backend.scan("", values=True)
        for key, found in page
    }
