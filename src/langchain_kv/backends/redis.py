"""The waist over Redis, a cluster of it, or Valkey, by redis-py: a client for plain calls, or one of ``redis.asyncio``.

A client serves its own kind of call as it is; the other kind goes through threads (a plain client) or through the event
loop that the client is at home in (one of ``redis.asyncio``). There is never a second one.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError, ResponseError
from redis.retry import Retry

from langchain_kv.backends.at_home import AtHomeBackend
from langchain_kv.backends.base import Backend, Change, Page, Record, Stored, SyncBackend
from langchain_kv.backends.planned import Fresh, PlannedBackend, Runner, driven, ping
from langchain_kv.backends.redis_plans import VALUE_MAX_BYTES, Batch, Plan, Plans, check_size
from langchain_kv.errors import (
    AuthError,
    ConfigError,
    ConnectError,
    InvalidValueTypeError,
    RequestTimeoutError,
    StoreClosedError,
    StoreError,
    TransportError,
)

__all__ = ["AsyncRedisBackend", "RedisBackend", "backend_of", "check_client", "make_client"]

T = TypeVar("T")

_PLAIN: Final = (redis.Redis, redis.RedisCluster)
_COROUTINES: Final = (redis.asyncio.Redis, redis.asyncio.RedisCluster)
_TRIES: Final = 3
_EXHAUSTED: Final = re.compile("Too many connections|No connection available")  # of the client's own pool


def make_client(url: str, *, is_cluster: bool, **options: Any) -> Any:
    """Return a client for a URL. It connects when it is first used, and sends nothing twice by itself.

    Raises:
        ConfigError: the URL is none.
    """
    kind = redis.RedisCluster if is_cluster else redis.Redis
    try:
        client = kind.from_url(url, **{"retry": Retry(NoBackoff(), 0), **options})
    except ValueError as error:
        raise ConfigError(f"The URL is none that redis-py takes: {error}") from None
    except (RedisError, RedisClusterException) as error:  # a cluster's client asks for its nodes at once
        raise error_of(error) from error
    if not is_cluster:  # whose client leaves out what it does not know
        _check_parameters(client)
    return client


def _check_parameters(client: Any) -> None:
    """Refuse what the client's first connection would be refused for; it is made, and connects to nothing."""
    pool = client.connection_pool
    try:
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError, RedisError) as error:
        raise ConfigError(f"redis-py does not take the URL with its parameters: {error}.") from None


def check_client(client: Any) -> None:
    """Check that a client can be used.

    Raises:
        InvalidValueTypeError: it is none of redis-py.
        ConfigError: it makes text of bytes.
    """
    if not isinstance(client, (*_PLAIN, *_COROUTINES)):
        raise InvalidValueTypeError(
            f"Expected Redis client, got {type(client).__name__} instead: give a Redis or RedisCluster of redis or of"
            " redis.asyncio."
        )
    if client.get_encoder().decode_responses:
        raise ConfigError(
            "The client was made with decode_responses=True, which makes text of every value: bytes would be lost."
            " Make it without."
        )


def backend_of(client: Any, prefix: str, *, shown: str, owned: bool) -> Backend:
    """Return the backend for a client, which was checked.

    Args:
        client: a client of redis-py.
        prefix: the text before every key.
        shown: how messages name the server.
        owned: whether closing the backend closes the client.
    """
    is_cluster = isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster)
    plans = Plans(prefix, is_cluster=is_cluster)
    if isinstance(client, _PLAIN):
        return RedisBackend(client, plans, shown=shown, owned=owned)
    return AsyncRedisBackend(client, plans, shown=shown)


class _Client:
    """What the backends of both kinds of client share.

    Attributes:
        client: the client of redis-py.
        can_update: it can.
        allows_empty_key: it does.
        key_max_bytes: what Redis takes.
    """

    can_update = True
    allows_empty_key = True

    def __init__(self, client: Any, plans: Plans, *, shown: str, owned: bool = False) -> None:
        self.client = client
        self._plans = plans
        self._shown = shown
        self._is_ours = owned
        self._is_cluster = isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster)
        self._closed = False

    @property
    def key_max_bytes(self) -> int:
        return VALUE_MAX_BYTES - len(self._plans.prefix.encode())

    def __repr__(self) -> str:
        return self._shown

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError(f"The store on {self._shown} was closed: open a new one.")

    def _pipeline(self, batch: Batch) -> Any:
        pipeline = self.client.pipeline(transaction=False)
        for command in batch.commands:
            pipeline.execute_command(*command)
        return pipeline.execute(raise_on_error=False)

    def _failed(self, error: Exception, batch: Batch) -> StoreError:
        failure = error_of(error)
        failure.__cause__ = error
        was_unreachable = isinstance(failure, ConnectError) and not _EXHAUSTED.match(str(error))
        if was_unreachable and (self._is_cluster or not self._is_ours):
            # redis-py sends again by itself, as the program has set its client, and tells of the last try only: the
            # command may have arrived by an earlier one.
            failure.applied = None
        if batch.reads:
            failure.applied = False
        elif failure.applied is None and not batch.is_repeatable:
            failure.retryable = False
            failure.args = (f"{failure} But it may have been carried out: read the key before that.",)
        return failure

    def _nodes(self) -> list[dict[str, Any]]:
        """Return how each node that has keys is addressed."""
        if self._is_cluster:
            return [{"target_nodes": node} for node in self.client.get_primaries()]
        return [{}]


class RedisBackend(_Client, SyncBackend):
    """Values under keys of Redis, by a plain client.

    Args:
        client: a Redis or a RedisCluster of redis-py, for bytes.
        plans: what is asked of it.
        shown: how messages name the server.
        owned: whether ``close`` closes the client.
    """

    def __init__(self, client: Any, plans: Plans, *, shown: str, owned: bool) -> None:
        super().__init__(client, plans, shown=shown, owned=owned)

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return self._do(self._plans.get(keys))

    def put_many(self, records: Sequence[Record]) -> None:
        self._do(self._plans.put(records))

    def check_many(self, records: Sequence[Record]) -> None:
        for record in records:
            check_size(record)

    def delete_many(self, keys: Sequence[str]) -> None:
        self._do(self._plans.delete(keys))

    def add_many(self, records: Sequence[Record]) -> list[bool]:
        return self._do(self._plans.add(records))

    def update(self, key: str, change: Change) -> None:
        self._do(self._plans.update(key, change))

    def touch_many(self, keys: Sequence[str], expires_at_ms: int) -> None:
        self._do(self._plans.touch(keys, expires_at_ms))

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        for group in self._listed(prefix, values=values):
            found = self.get_many(group) if values else [None] * len(group)
            yield [(key, one) for key, one in zip(group, found, strict=True) if one is not None or not values]

    def purge(self) -> int:
        count = 0
        for group in self._listed("", values=False, expired=True):
            self.delete_many(group)
            count += len(group)
        return count

    def open(self, *, clear: bool = False) -> None:
        self._do(ping())
        if clear:
            self.clear("")

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            super().close()
            if self._is_ours:
                self.client.close()
                if self._is_cluster:  # whose client leaves the connections to its nodes open (redis-py 8)
                    self.client.disconnect_connection_pools()

    def _listed(self, prefix: str, *, values: bool, expired: bool = False) -> Generator[list[str]]:
        self._check_open()
        fresh = Fresh()
        for node in self._nodes():
            cursor = b"0"
            while True:
                plan = self._plans.listed(prefix, cursor, values=values, expired=expired)
                cursor, groups = self._do(plan, **node)
                yield from fresh.of(groups)
                if cursor == b"0":
                    break

    def _do(self, plan: Plan[T], **where: Any) -> T:
        self._check_open()
        try:
            batch = next(plan)
            while True:
                batch = plan.send(self._send(batch, where))
        except StopIteration as end:
            answer: T = end.value
            return answer

    def _send(self, batch: Batch, where: dict[str, Any]) -> list[Any]:
        tries = _TRIES if self._is_ours and batch.is_repeatable else 1
        lost: StoreError | None = None  # of a try that may have arrived: no later one makes that surer
        for number in range(tries):
            if number > 0:
                time.sleep(_wait_s(number - 1))
            replies = self._try(batch, where)
            if lost is not None:
                replies = [lost if isinstance(one, StoreError) else one for one in replies]
            broken = next((one for one in replies if isinstance(one, TransportError)), None)
            if broken is None:
                break
            if broken.applied is None:
                lost = broken
        return replies

    def _try(self, batch: Batch, where: dict[str, Any]) -> list[Any]:
        try:
            if len(batch.commands) == 1:
                return [self.client.execute_command(*batch.commands[0], **where)]
            return [self._failed(one, batch) if isinstance(one, Exception) else one for one in self._pipeline(batch)]
        except (RedisError, OSError) as error:
            return [self._failed(error, batch)] * len(batch.commands)


class AsyncRedisBackend(_Client, AtHomeBackend, PlannedBackend):
    """Values under keys of Redis, by a client of ``redis.asyncio``.

    Such a client has its connections in the event loop that used it first.
    """

    def __init__(self, client: Any, plans: Plans, *, shown: str) -> None:
        _Client.__init__(self, client, plans, shown=shown)
        AtHomeBackend.__init__(self, client)

    def close(self) -> None:
        self._closed = True

    async def aclose(self) -> None:
        self.close()

    async def _runner(self, *, writes: bool) -> Runner:
        return self._run_at_home

    async def _run_at_home(self, plan: Plan[T], **where: Any) -> T:
        self._check_open()
        return await self._at_home(partial(driven, plan, partial(self._send, where=where)))

    async def _asked_nodes(self) -> list[dict[str, Any]]:
        await self._carry_out(ping())  # a cluster's client asks for its nodes
        return self._nodes()

    async def _send(self, batch: Batch, where: dict[str, Any]) -> list[Any]:
        try:
            if len(batch.commands) == 1:
                return [await self.client.execute_command(*batch.commands[0], **where)]
            return [
                self._failed(one, batch) if isinstance(one, Exception) else one for one in await self._pipeline(batch)
            ]
        except (RedisError, OSError) as error:
            return [self._failed(error, batch)] * len(batch.commands)


def _wait_s(number: int) -> float:
    return random.uniform(0.05, 0.1) * float(4**number)  # noqa: S311 - it spreads clients


def error_of(error: Exception) -> StoreError:
    """Return the error of ours for one of redis-py's; its text never has a value."""
    text = str(error).partition(", with args")[0][:200]  # what the server was sent
    if isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError):
        return AuthError(f"Redis refused the user or the password, or what he may do: {text}")
    if isinstance(error, redis.TimeoutError | TimeoutError):
        return RequestTimeoutError(f"Redis did not answer in time ({text}): repeat the call, or give it more time.")
    if isinstance(error, redis.BusyLoadingError | redis.exceptions.ClusterDownError):
        failed = StoreError(f"Redis is not ready: {text} Repeat the call in a while.")
        failed.retryable = True
        return failed
    if isinstance(error, ResponseError):
        return StoreError(f"Redis refused the command: {text}")
    if _EXHAUSTED.match(text):
        return ConnectError(
            "All connections of the Redis client are in use, and nothing was sent: give it more (max_connections), or"
            " a BlockingConnectionPool, which waits for one; or make fewer calls at once."
        )
    if "onnecting to" in text or "cannot be connected" in text:
        return ConnectError(f"Redis cannot be reached: {text} Is it running, and are host and port right?")
    return TransportError(f"The connection to Redis broke: {text or type(error).__name__} Repeat the call.")
