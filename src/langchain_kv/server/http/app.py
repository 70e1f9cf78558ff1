"""The Data API over HTTP: who may ask, for what, and what kind of body. Knows no sockets and no commands."""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from langchain_kv.engines.base import Engine
from langchain_kv.errors import ConfigError, DataAPIError, StoreError
from langchain_kv.server.commands.reply import failed
from langchain_kv.server.commands.table import answer
from langchain_kv.server.http.connections import Answer, HttpRequest
from langchain_kv.values.secret import Secret

__all__ = ["HEALTH_S", "DataAPI", "login_token", "refuse_token", "server_token"]

HEALTH_S = 10.0
"""Seconds after which an engine that does not answer is called down."""

_JSON: Final = [(b"content-type", b"application/json;charset=UTF-8")]
_TOKEN_HEADERS: Final = (b"token", b"x-cassandra-token")
_GATEWAY_PREFIX: Final = "/api/json"
"""Where Astra's gateway has what the Data API has at ``/v1``: clients left at their default environment ask there."""

_ROOT: Final = Answer(
    200,
    b"<title>langchain-kv</title>A Data API is here: send commands to /v1/{keyspace}/{collection}.\n",
    [(b"content-type", b"text/html;charset=UTF-8")],
)
_LIVE: Final = "/stargate/health/live"
_HEALTH: Final = ("/stargate/health", "/stargate/health/ready")
_HEALTH_JSON: Final = [(b"content-type", b"application/json; charset=UTF-8")]
_UP: Final = Answer(200, b'{"status":"UP","checks":[]}', _HEALTH_JSON)
_DOWN: Final = Answer(503, b'{"status":"DOWN","checks":[{"name":"database","status":"DOWN"}]}', _HEALTH_JSON)

_logger = logging.getLogger("langchain_kv")


def server_token(token: str) -> Secret:
    """Return a token as clients can send it, without the white space around it.

    Raises:
        ConfigError: nothing is left, or there is a line end or another control character in it.
    """
    token = Secret(token.strip())
    if not token:
        raise ConfigError("The server needs a token that is not empty: clients send it with every request.")
    if any(character < " " or character == "\x7f" for character in token):
        raise ConfigError("The server's token has a line end or a control character in it: give one line of text.")
    return token


def login_token(user: str, password: str) -> Secret:
    """Return what the Data API's clients make of a user and a password, and send as their token."""
    password = Secret(password)
    encoded = [base64.b64encode(each.encode()).decode() for each in (user, password)]
    return Secret(f"Cassandra:{':'.join(encoded)}")


def refuse_token(tokens: Sequence[str], headers: dict[bytes, bytes]) -> Answer | None:
    """Say why a request may not be carried out; comparing takes as long whatever is wrong with the token.

    Args:
        tokens: those that are right.
        headers: from here on nothing of the request shows the token, such as the variables of a traceback: it is
            removed.
    """
    given = next((headers[name] for name in _TOKEN_HEADERS if headers.get(name)), b"")
    for name in _TOKEN_HEADERS:
        headers.pop(name, None)
    if not given:
        error = DataAPIError.of(
            "MISSING_AUTHENTICATION_TOKEN", "The request has no token: send it in the header 'Token'."
        )
        return _error(error)._replace(headers=[(b"content-type", b"application/json")])
    if not any(hmac.compare_digest(given, token.encode()) for token in tokens):
        return _error(
            DataAPIError.of(
                "UNAUTHENTICATED_REQUEST",
                "The token is not the one of this server: send the one it was started with.",
            )
        )
    return None


class DataAPI:
    """The application that serves an engine.

    Args:
        engine: where documents are kept; the caller closes it.
        tokens: each is one that clients may send.

    Raises:
        ConfigError: there is no token, or one that no client could send.
    """

    def __init__(self, engine: Engine, *tokens: str) -> None:
        self._engine = engine
        self._tokens = [server_token(token) for token in tokens or ("",)]
        self._look: asyncio.Task[Answer] | None = None

    def refuse(self, request: HttpRequest) -> Answer | None:
        """Return the answer to anything but a health check and a command with the right token."""
        path, headers = request.path.removeprefix(_GATEWAY_PREFIX), request.headers
        if not (path == "/v1" or path.startswith("/v1/")):
            return _refuse_other(request)
        refusal = refuse_token(self._tokens, headers)
        if refusal is not None:
            return refusal
        names = _names(path)
        if names is None:
            return Answer(404)
        if request.method != "POST":
            return Answer(404 if len(names) == 2 else 405)
        kind = headers.get(b"content-type", b"")
        if kind not in (b"", b"application/json") and kind.split(b";")[0].strip().lower() != b"application/json":
            message = "The body has to be JSON: send the header 'Content-Type: application/json'."
            return _error(DataAPIError.of("UNSUPPORTED_CONTENT_TYPE", message))
        return None

    async def answer(self, request: HttpRequest) -> Answer:
        """Carry out a command, or look at the engine's health."""
        names = _names(request.path.removeprefix(_GATEWAY_PREFIX))
        if names is None:
            return await self._health()
        status, reply = await answer(self._engine, names, request.body)
        return Answer(status, reply, _JSON)

    async def _health(self) -> Answer:
        """Look whether the engine reads and takes writes. Whoever asks meanwhile, without a token, shares the look."""
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().create_task(self._look_at_engine())
        try:
            async with asyncio.timeout(HEALTH_S):
                return await asyncio.shield(self._look)
        except TimeoutError:
            return _DOWN

    async def _look_at_engine(self) -> Answer:
        bridge = self._engine.bridge
        try:
            await bridge.read(self._engine.keyspaces)
            await bridge.write(self._engine.keyspaces)  # nothing is written: it shows that writes have their turn
        except StoreError as error:
            _logger.error("The health check failed: %s", error)
            return _DOWN
        return _UP


@lru_cache(maxsize=1024)
def _names(path: str) -> tuple[str, ...] | None:
    """Return the keyspace and the collection that a path names, as far as it does; None for no path of commands."""
    first, version, *names = path.removesuffix("/").split("/") if path.startswith("/v1") else ("", "")
    return tuple(names) if (first, version) == ("", "v1") and len(names) <= 2 and "" not in names else None


def _refuse_other(request: HttpRequest) -> Answer | None:
    """Answer what is no command: the page at the root, the health checks, and an unknown path by its status alone."""
    if request.path not in ("/", _LIVE, *_HEALTH):
        return Answer(404)
    if request.method not in ("GET", "HEAD"):
        return Answer(405)
    return _ROOT if request.path == "/" else _UP if request.path == _LIVE else None


def _error(error: DataAPIError) -> Answer:
    reply = failed(error)
    return Answer(reply.http_status, reply.encoded(), _JSON)
