"""A backend behind an HTTP service: its connections, its token and its patience, whatever is asked of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn, TypeVar

from langchain_kv import limits
from langchain_kv.backends.async_base import AsyncBackend
from langchain_kv.backends.dataapi.client import Pool
from langchain_kv.backends.dataapi.proxies import proxy_for
from langchain_kv.backends.dataapi.retry import Call, TokenSource
from langchain_kv.errors import ConfigError, StoreClosedError, StoreError
from langchain_kv.runtime import threads
from langchain_kv.runtime.forks import keep_for_ever, renew_in_child
from langchain_kv.runtime.sharing import Shared

__all__ = ["HTTPBackend", "checked_headers"]

T = TypeVar("T")
Verb = Callable[[Call], Coroutine[Any, Any, T]]

_pools: Shared[Pool] = Shared()
keep_for_ever(_pools)  # collected as the interpreter ends, sessions of loops that nobody closed would complain


class _Process:
    """What this process has of it."""

    def __init__(self) -> None:
        self._after_fork_in_child()
        renew_in_child(self)

    def _after_fork_in_child(self) -> None:
        self.lock = threads.Mutex()


_process = _Process()


class HTTPBackend(AsyncBackend):
    """The base of backends behind an HTTP service. Those of one endpoint and TLS settings share their connections.

    Args:
        endpoint: ``https://HOST`` or ``http://HOST:PORT``.
        shown: how messages name what is behind it.
        token: the token, or a function that returns it, called in a thread (with the caller's context variables) once
            an operation, and once more after the service refused what it returned.
        ca_file: a PEM file of the authorities to trust, in place of the system's.
        request_timeout_s: seconds for one request, answer included.
        deadline_s: seconds that an operation goes on trying without any success.
        wake_timeout_s: seconds that a hibernated database is waited for; None where HTTP 503 means nothing special.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        shown: str,
        token: TokenSource,
        ca_file: str | None = None,
        request_timeout_s: float = limits.REQUEST_TIMEOUT_S,
        deadline_s: float = limits.DEADLINE_S,
        wake_timeout_s: float | None = None,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._shown = shown
        self._token = token
        self._request_timeout_s = request_timeout_s
        self._deadline_s = deadline_s
        self._wake_timeout_s = wake_timeout_s
        # Stores share connections that were made in one way: what the environment says of it may change in between.
        trusted = (ca_file, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        self._proxy = proxy_for(self._endpoint)
        self._pool_key = (self._endpoint, self._proxy, trusted)
        self._ca_file = ca_file
        self._pool: Pool | None = None
        self._pool_pid = 0
        self._closed = False
        self._new_until = 0.0  # by the monotonic clock: until then the collection may not be there for everybody yet

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"A {type(self).__name__} holds connections and a token, and is not pickled: pickle the store.")

    def close(self) -> None:
        pool = self._give_up_pool()
        if pool is not None:
            pool.close()

    async def aclose(self) -> None:
        pool = self._give_up_pool()
        if pool is not None:
            await pool.aclose()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _do(self, verb: Verb[T], *, writes: bool = False) -> T:
        call = await self._begin(writes)
        try:
            return await verb(call)
        except StoreError as error:
            if not await call.renew(error):
                raise
        return await verb(call)

    async def _begin(self, writes: bool) -> Call:
        self._check_open()
        call = Call(
            self._token,
            deadline_s=self._deadline_s,
            timeout_s=self._request_timeout_s,
            writes=writes,
            wake_timeout_s=self._wake_timeout_s,
            new_until=self._new_until,
        )
        return await call.begin()

    def _empty(self) -> list[Any]:
        """Answer an empty batch, without a request."""
        self._check_open()
        return []

    # -- connections --------------------------------------------------------------------------------------------

    def _current_pool(self) -> Pool:
        pool = self._pool
        if pool is not None and self._pool_pid == os.getpid():
            return pool
        with _process.lock:
            if self._pool is None or self._pool_pid != os.getpid():  # a forked child has a pool of its own
                self._check_open()
                self._pool = _pools.acquire(self._pool_key, lambda: Pool(self._ca_file, self._proxy))
                self._pool_pid = os.getpid()
            return self._pool

    def _give_up_pool(self) -> Pool | None:
        """Close the backend; return its pool where no other backend uses it."""
        with _process.lock:
            self._closed = True
            pool, self._pool = self._pool, None
        return None if pool is None else _pools.release(pool)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError(f"The store of {self._shown} is closed: make a new one.")


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers.

    Raises:
        ConfigError: one is no printable ASCII text.
    """
    for name, value in headers.items():
        if (
            not all(isinstance(text, str) and text.isascii() and text.isprintable() for text in (name, value))
            or not name
        ):
            raise ConfigError(
                f"The header {str(name)[:40]!r} is not printable ASCII text: check api_options'"
                " database_additional_headers."
            )
    return dict(headers)
