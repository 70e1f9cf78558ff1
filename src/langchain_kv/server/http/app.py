"""The Data API over HTTP: tokens, paths, sizes and content types. The one module that knows Starlette."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Final, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_kv.engines.base import Engine
from langchain_kv.errors import ConfigError, DataAPIError
from langchain_kv.limits import BODY_MAX_BYTES
from langchain_kv.server.commands.reply import failed
from langchain_kv.server.commands.table import answer
from langchain_kv.values.secret import Secret

__all__ = ["create_app"]

_JSON: Final = b"application/json;charset=UTF-8"
_TOKEN_HEADERS: Final = (b"token", b"x-cassandra-token")
_ROOT_TEXT: Final = "<title>langchain-kv</title>A Data API is here: send commands to /v1/{keyspace}/{collection}.\n"
_HEALTH_TEXT: Final = '{"status":"UP","checks":[]}'


_SHORT_MAX_BYTES: Final = 64 * 1024  # as much as is taken in of any request before anybody looks at it
_JSON_TYPES: Final = (b"application/json", b"", b"application/json; charset=utf-8", b"application/json;charset=UTF-8")
_UNUSUAL_HEADERS: Final = (b"expect", b"transfer-encoding")
_PLAIN_URL: Final = re.compile(rb"/v1(?:/(\w+)(?:/(\w+))?)?/?")

Command = Callable[[bytes], Awaitable[tuple[int, bytes]]]
"""Takes the body of a request; answers the HTTP status and the JSON text of the reply."""


class TooLargeError(Exception):
    """A request's body is over the limit."""


class GoneError(Exception):
    """The client left before its request was read."""


def create_app(engine: Engine, token: str) -> ASGIApp:
    """Return the ASGI application that serves an engine.

    Args:
        engine: where documents are kept; the caller closes it.
        token: what clients send as their token, any text that is not empty.

    Raises:
        ConfigError: the token is empty.
    """
    if not token:
        raise ConfigError("The server needs a token that is not empty: clients send it with every request.")
    return Application(DataAPI(engine, token))


class Application:
    """Sends commands to the Data API, and the little else to Starlette."""

    def __init__(self, data_api: DataAPI) -> None:
        self._data_api = data_api
        self._others = Starlette(
            routes=[Route("/", _root), *(Route(path, _health) for path in _HEALTH_PATHS)],
            exception_handlers={HTTPException: _refuse, Exception: _refuse},
        )
        self._others.router.redirect_slashes = False
        self.ordinary_command = data_api.ordinary_command

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Commands do not go through Starlette's routes and middleware, which took a quarter of the time of a findOne.
        path = scope.get("path", "")
        is_command = path == "/v1" or path.startswith("/v1/")
        await (self._data_api if is_command and scope["type"] == "http" else self._others)(scope, receive, send)


_HEALTH_PATHS: Final = ("/stargate/health", "/stargate/health/live", "/stargate/health/ready")


async def _root(_: Request) -> Response:
    return Response(_ROOT_TEXT, headers={"content-type": "text/html;charset=UTF-8"})


async def _health(_: Request) -> Response:
    return Response(_HEALTH_TEXT, headers={"content-type": "application/json; charset=UTF-8"})


async def _refuse(_: Request, error: Exception) -> Response:
    """Answer an unknown path or method with the status alone."""
    return Response(status_code=error.status_code if isinstance(error, HTTPException) else 500)


class Answer(NamedTuple):
    """What goes back; ``is_last`` ends the connection."""

    status: int
    body: bytes = b""
    content_type: bytes = b""
    is_last: bool = False


class DataAPI:
    """Everything below /v1, as an ASGI application."""

    def __init__(self, engine: Engine, token: str) -> None:
        self._engine = engine
        self._token = Secret(token)

    def ordinary_command(self, url: bytes, headers: list[tuple[bytes, bytes]]) -> Command | None:
        """Return what carries out a POST that needs no answer but its command's, or None where anything is unusual.

        That is one with the right token to a plain path, with a small body of JSON. Others go the way of ASGI, which
        finds out what is to be said of them.

        Args:
            url: what the request's first line says.
            headers: their names in small letters, and their values.
        """
        given = dict(reversed(headers))  # of a repeated one, the first
        length = given.get(b"content-length", b"")
        if not length.isdigit() or int(length[:9]) > _SHORT_MAX_BYTES or not given.keys().isdisjoint(_UNUSUAL_HEADERS):
            return None
        if given.get(b"content-type", b"") not in _JSON_TYPES or self._refusal(given) is not None:
            return None
        path = _plain_path(url)
        return None if path is None else partial(answer, self._engine, path)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._answer(scope, receive)
        except GoneError:
            return
        # By hand: Starlette's Response takes longer than finding a document.
        headers = [(b"content-length", b"%d" % len(reply.body))]
        if reply.content_type:
            headers.append((b"content-type", reply.content_type))
        if reply.is_last:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # of a repeated one, the first
        refusal = self._refusal(headers)
        # From here on nothing of the request shows the token: not the variables of a traceback, uvicorn's included.
        scope["headers"] = [header for header in scope["headers"] if header[0] not in _TOKEN_HEADERS]
        for name in _TOKEN_HEADERS:
            headers.pop(name, None)
        if refusal is not None:
            return _error(refusal, b"application/json" if refusal.code.startswith("MISSING") else _JSON)
        names = scope["path"].removeprefix("/v1").removeprefix("/").removesuffix("/")
        path = tuple(names.split("/")) if names else ()
        if len(path) > 2 or "" in path:
            return Answer(404)
        if scope["method"] != "POST":
            return Answer(404 if len(path) == 2 else 405)
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind not in (b"", b"application/json"):
            message = "The body has to be JSON: send the header 'Content-Type: application/json'."
            return _error(DataAPIError.of("UNSUPPORTED_CONTENT_TYPE", message), _JSON)
        try:
            body = await _read_body(headers, receive)
        except TooLargeError:
            return Answer(413, is_last=True)
        status, reply = await answer(self._engine, path, body)
        return Answer(status, reply, _JSON)

    def _refusal(self, headers: dict[bytes, bytes]) -> DataAPIError | None:
        """Return why a request may not be carried out; comparing takes as long whatever is wrong with the token."""
        given = next((headers[name] for name in _TOKEN_HEADERS if headers.get(name)), b"")
        if not given:
            return DataAPIError.of(
                "MISSING_AUTHENTICATION_TOKEN", "The request has no token: send it in the header 'Token'."
            )
        if not hmac.compare_digest(given, self._token.encode()):
            return DataAPIError.of(
                "UNAUTHENTICATED_REQUEST", "The token is not the one of this server: send the one it was started with."
            )
        return None


@lru_cache(maxsize=1024)
def _plain_path(url: bytes) -> tuple[str, ...] | None:
    """Return the names in a URL that is nothing but letters, digits and underscores, or None."""
    names = _PLAIN_URL.fullmatch(url)
    return None if names is None else tuple(name.decode() for name in names.groups() if name is not None)


async def _read_body(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    """Return the body, of at most BODY_MAX_BYTES.

    What is too large is read on for as much again and thrown away: a client that sends first and listens later sees the
    answer instead of a reset. One that asks first (``Expect: 100-continue``) is told before it sends.
    """
    length = headers.get(b"content-length", b"")
    is_too_large = length.isdigit() and int(length) > BODY_MAX_BYTES
    if is_too_large and b"expect" in headers:
        raise TooLargeError
    parts: list[bytes] = []
    size = 0
    has_more = True
    while has_more and size <= 2 * BODY_MAX_BYTES:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise GoneError
        part = message.get("body", b"")
        has_more = message.get("more_body", False)
        size += len(part)
        is_too_large = is_too_large or size > BODY_MAX_BYTES
        if is_too_large:
            parts.clear()
        else:
            parts.append(part)
    if is_too_large:
        raise TooLargeError
    return b"".join(parts)


def _error(error: DataAPIError, content_type: bytes) -> Answer:
    reply = failed(error)
    return Answer(reply.http_status, reply.encoded(), content_type)
