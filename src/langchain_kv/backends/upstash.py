"""The waist over Upstash's Redis, by its REST interface: the plans of ``redis_plans``, sent over HTTP.

Commands are JSON arrays, many of them in one request. A command with bytes that are no text is a request of its own:
its arguments are in the URL, the bytes are the body. Answers are RESP2, as Redis itself answers, or base64 of what does
not offer that (other servers of this interface). What is stored are raw bytes, whatever way they came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import quote

import orjson
from yarl import URL

from langchain_kv._version import __version__
from langchain_kv.backends.dataapi.client import Pool, Reply, prepared
from langchain_kv.backends.dataapi.flow import each
from langchain_kv.backends.dataapi.retry import Attempt, Call
from langchain_kv.backends.dataapi.sending import hide_token
from langchain_kv.backends.dataapi.service import HTTPBackend, checked_headers
from langchain_kv.backends.planned import PlannedBackend, Runner, driven
from langchain_kv.backends.redis_plans import Batch, Plan, Plans
from langchain_kv.backends.upstash_replies import parse_replies, speaks_json
from langchain_kv.errors import AuthError, InvalidValueError, StoreError
from langchain_kv.values.secret import masked

__all__ = ["UpstashBackend"]

T = TypeVar("T")
Command = Sequence[str | bytes]

_BYTES_MAX: Final = 1_500_000
"""Bytes of values at once: the smallest plans take requests of 10 MB (source: Upstash), and JSON may have 6 for one."""

_LARGE_BYTES: Final = 256 * 1024
_WIDTH: Final = 32  # requests of one operation under way at once
_SYNC: Final = "Upstash-Sync-Token"

_sync_tokens: dict[str, str] = {}
"""What each endpoint answered last: sent with the next request, the replica that reads has seen what was written."""


class UpstashBackend(PlannedBackend, HTTPBackend):
    """Values under keys of an Upstash Redis. Constructing one sends nothing; see ``HTTPBackend`` for the rest.

    Args:
        endpoint: ``https://HOST`` or ``http://HOST:PORT``.
        prefix: the text before every key.
        token: the token, or a function that returns it.
        user_agent: the header of that name.
        headers: sent with every request; treated as secret.
        options: as ``HTTPBackend`` has them.
    """

    allows_empty_key = True

    def __init__(
        self,
        endpoint: str,
        prefix: str,
        *,
        user_agent: str = f"langchain-kv/{__version__}",
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(endpoint, shown=f"upstash:{endpoint}", **options)
        self._plans = Plans(prefix, is_cluster=False, takes_bytes=False, bytes_max=_BYTES_MAX)
        self._headers = {**checked_headers(headers or {}), "User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._is_resp2 = True

    def __repr__(self) -> str:
        return self._shown

    async def _runner(self, *, writes: bool) -> Runner:
        return partial(self._run_in, await self._begin(writes))

    async def _run_in(self, call: Call, plan: Plan[T]) -> T:
        call.restart()
        return await driven(plan, partial(self._send, call))

    async def _send(self, call: Call, batch: Batch) -> list[Any]:
        """Return the reply to each command; an error is one."""
        replies = await self._replies(call, batch)
        refused = [number for number, reply in enumerate(replies) if isinstance(reply, AuthError)]
        if refused and await call.renew(replies[refused[0]]):
            again = await self._replies(call, batch._replace(commands=[batch.commands[number] for number in refused]))
            for number, reply in zip(refused, again, strict=True):
                replies[number] = reply
        return replies

    async def _replies(self, call: Call, batch: Batch) -> list[Any]:
        commands: list[Command] = [tuple(map(_text, command)) for command in batch.commands]
        raw = [number for number, command in enumerate(commands) if any(isinstance(part, bytes) for part in command)]
        texts = [number for number in range(len(commands)) if number not in set(raw)]
        replies: list[Any] = [None] * len(commands)

        async def ask(numbers: Sequence[int]) -> None:
            try:
                some = await self._asked(call, [commands[number] for number in numbers], batch.is_repeatable)
            except StoreError as error:
                if batch.reads:
                    error.applied = False
                some = [error] * len(numbers)
            for number, reply in zip(numbers, some, strict=True):
                replies[number] = reply

        await each(ask, [*([texts] if texts else []), *([number] for number in raw)], _WIDTH)
        return replies

    async def _asked(self, call: Call, commands: Sequence[Command], is_repeatable: bool) -> list[Any]:
        url, body = self._request(commands)
        data = body if len(body) < _LARGE_BYTES else [body]
        what = f"{commands[0][0]!s} on {self._shown}"
        pool: Pool = self._current_pool()

        async def attempt(one: Attempt) -> list[Any]:
            try:
                reply = self._noted(await pool.post(url, data, self._headers_of(call), one))
                if self._is_resp2 and speaks_json(reply, is_repeatable=is_repeatable):
                    self._is_resp2 = False
                    reply = self._noted(await pool.post(url, data, self._headers_of(call), one))
                return parse_replies(reply, len(commands), what)
            except StoreError as error:
                hide_token(error, call.token)
                if not is_repeatable and error.applied is None:
                    error.retryable = one.is_stale = False
                raise

        return await call.persist(attempt, pool.flow(), what=f"{what} ({len(commands)} commands)")

    def _noted(self, reply: Reply) -> Reply:
        if _SYNC in reply.headers:
            _sync_tokens[self._endpoint] = reply.headers[_SYNC]
        return reply

    def _headers_of(self, call: Call) -> Mapping[str, str]:
        headers = dict(self._headers)
        headers.update({"Upstash-Response-Format": "resp2"} if self._is_resp2 else {"Upstash-Encoding": "base64"})
        if self._endpoint in _sync_tokens:
            headers[_SYNC] = _sync_tokens[self._endpoint]
        if call.token is not None:
            headers["Authorization"] = masked(f"Bearer {call.token}")
        return prepared(headers)

    def _request(self, commands: Sequence[Command]) -> tuple[URL, bytes]:
        """Return where commands go, and the body of the request."""
        if len(commands) > 1:
            return URL(f"{self._endpoint}/pipeline", encoded=True), orjson.dumps(commands)
        parts = commands[0]
        at = next((number for number, part in enumerate(parts) if isinstance(part, bytes)), None)
        if at is None:
            return URL(f"{self._endpoint}/", encoded=True), orjson.dumps(parts)
        path, body, options = parts[:at], parts[at], parts[at + 1 :]
        assert isinstance(body, bytes)  # noqa: S101 - it was just found by that
        if not {"", ".", ".."}.isdisjoint(path):
            raise InvalidValueError(
                "A value that is no UTF-8 is sent with its key in the URL, where the empty key, '.' and '..' mean"
                " something else: give it another key."
            )
        query = "&".join(f"{name!s}={value!s}" for name, value in zip(options[::2], options[1::2], strict=True))
        address = "/".join(quote(part, safe="") for part in path)
        return URL(f"{self._endpoint}/{address}{'?' if query else ''}{query}", encoded=True), body


def _text(part: Any) -> str | bytes:
    if not isinstance(part, bytes):
        return str(part)
    try:
        return part.decode()
    except UnicodeDecodeError:
        return part
