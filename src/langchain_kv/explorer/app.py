"""The explorer over HTTP: its static files for anybody, what it reads only with the token; the rest is another's.

A page elsewhere can do nothing here: a route wants a POST with a JSON content type and the token in a header. No form
can send that, and a browser asks before a script may; that question gets no answer that allows it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Final

from langchain_kv.explorer.routes import Routes
from langchain_kv.runtime.work_queue import run_aside
from langchain_kv.server.http.app import refuse_token, server_token
from langchain_kv.server.http.connections import Answer, Application, HttpRequest

__all__ = ["POLICY", "Explorer"]

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""What the browser lets the page do: run its own files, and ask its own server."""

APART_MAX: Final = 4
"""Questions that are answered at once, each on a thread; others wait for their turn."""

_PREFIX: Final = "/explorer/"
_STATIC: Final = Path(__file__).with_name("static")
_TYPES: Final = {
    ".html": b"text/html;charset=UTF-8",
    ".css": b"text/css;charset=UTF-8",
    ".js": b"text/javascript;charset=UTF-8",
}
_GUARDS: Final = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class Explorer:
    """The application that shows a target in the browser.

    Args:
        routes: what it reads; the caller closes it.
        tokens: each is one that a user may give.
        inner: answers what is no part of the explorer; None: nobody does.

    Raises:
        ConfigError: there is no token, or one that no client could send.
    """

    def __init__(self, routes: Routes, *tokens: str, inner: Application | None = None) -> None:
        self._routes = routes
        self._tokens = [server_token(token) for token in tokens or ("",)]
        self._inner = inner
        self._turns = asyncio.Semaphore(APART_MAX)
        self._files = {f"{_PREFIX}{path.name}": _file(path) for path in _STATIC.iterdir() if path.suffix in _TYPES}
        self._files["/"] = self._files.pop(f"{_PREFIX}index.html")

    def refuse(self, request: HttpRequest) -> Answer | None:
        """Return the answer to what needs no body: a file, or anything without the right token."""
        if request.path in self._files:
            return self._files[request.path] if request.method in ("GET", "HEAD") else _plain(405)
        if not request.path.startswith(_PREFIX):
            return _plain(404) if self._inner is None else self._inner.refuse(request)
        if not self._routes.has(request.path.removeprefix(_PREFIX)):
            return _plain(404)
        if request.method != "POST":
            return _plain(405)
        refusal = refuse_token(self._tokens, request.headers)
        if refusal is not None:
            return refusal._replace(headers=[*refusal.headers, *_GUARDS])
        kind = request.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        return None if kind == b"application/json" else _plain(415)

    async def answer(self, request: HttpRequest) -> Answer:
        """Answer what the page asks, on a thread: nothing else waits for it."""
        if not request.path.startswith(_PREFIX):
            assert self._inner is not None  # noqa: S101 - ``refuse`` answered otherwise
            return await self._inner.answer(request)
        async with self._turns:
            call = partial(self._routes.answer, request.path.removeprefix(_PREFIX), request.body)
            reply = await run_aside(call, "langchain-kv explorer")
        if reply.is_json:
            return Answer(reply.status, reply.body, [(b"content-type", b"application/json"), *_GUARDS])
        kind = [(b"content-type", b"application/octet-stream"), (b"content-disposition", b"attachment")]
        return Answer(reply.status, reply.body, [*kind, *_GUARDS])


def _file(path: Path) -> Answer:
    return Answer(200, path.read_bytes(), [(b"content-type", _TYPES[path.suffix]), *_GUARDS])


def _plain(status: int) -> Answer:
    return Answer(status, b"", _GUARDS)
