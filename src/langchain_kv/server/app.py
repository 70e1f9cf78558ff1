"""The Data API over HTTP: tokens, paths, sizes and content types. The one module that knows Starlette."""

from __future__ import annotations

import hmac
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
from langchain_kv.secret import Secret
from langchain_kv.server.commands import answer
from langchain_kv.server.reply import failed

__all__ = ["create_app"]

_JSON: Final = b"application/json;charset=UTF-8"
_TOKEN_HEADERS: Final = (b"token", b"x-cassandra-token")
_ROOT_TEXT: Final = "<title>langchain-kv</title>A Data API is here: send commands to /v1/{keyspace}/{collection}.\n"
_HEALTH_TEXT: Final = '{"status":"UP","checks":[]}'


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
    data_api = DataAPI(engine, token)
    others = Starlette(
        routes=[Route("/", _root), *(Route(path, _health) for path in _HEALTH_PATHS)],
        exception_handlers={HTTPException: _refuse, Exception: _refuse},
    )
    others.router.redirect_slashes = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # Commands do not go through Starlette's routes and middleware, which took a quarter of the time of a findOne.
        path = scope.get("path", "")
        is_command = path == "/v1" or path.startswith("/v1/")
        await (data_api if is_command and scope["type"] == "http" else others)(scope, receive, send)

    return app


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
