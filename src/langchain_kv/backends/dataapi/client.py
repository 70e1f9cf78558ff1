"""HTTP: the one module of the asking side that touches aiohttp, whose exceptions stay here. Bytes go out, and in."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import weakref
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from functools import lru_cache
from time import time
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from langchain_kv.backends.dataapi.bodies import LargeBody, read_large
from langchain_kv.backends.dataapi.flow import WIDTH_MAX, Flow
from langchain_kv.backends.dataapi.proxies import Proxy
from langchain_kv.backends.dataapi.retry import Attempt
from langchain_kv.errors import (
    BadReplyError,
    ConfigError,
    ConnectError,
    RequestTimeoutError,
    StoreClosedError,
    StoreError,
    TransportError,
    UsageError,
)
from langchain_kv.runtime import loop_thread, threads
from langchain_kv.runtime.forks import keep_for_ever

__all__ = ["Pool", "Reply", "prepared"]

KEEP_ALIVE_S: Final = 60.0
"""Seconds that an idle connection is kept; one that the server closed earlier is noticed, and the request sent anew."""

CONNECT_TIMEOUT_S: Final = 10.0
"""Seconds for making one connection; half the request's timeout where that is less."""

REPLY_MAX_BYTES: Final = 512 * 1024 * 1024
"""Bytes of one reply: 100 documents of 4,000,000 characters, most of which are ASCII, fit."""

COMPRESSED_REPLY_MAX_BYTES: Final = 64 * 1024 * 1024
"""Bytes of a reply that came compressed, which was not asked for: a megabyte on the wire may stand for a thousand."""

PROXY_REFUSED: Final = 407
"""The HTTP status of a proxy that asks who one is."""

_LARGE_REPLY_BYTES: Final = 1024 * 1024
"""From this size on a reply is read into its place."""


_UNKNOWN_NAME: Final = frozenset(
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_FAIL", "EAI_FAMILY", "EAI_ADDRFAMILY", "EAI_SERVICE")
    if hasattr(socket, name)
)
"""Answers of the name look-up that another try does not change; EAI_AGAIN, EAI_SYSTEM and EAI_MEMORY are not."""


class Reply(NamedTuple):
    """What came back.

    Attributes:
        status: the HTTP status.
        body: the whole body, decompressed.
        headers: by their names, in any case of letters.
    """

    status: int
    body: bytes | bytearray
    headers: Mapping[str, str] = MappingProxyType({})


class _Connector(aiohttp.TCPConnector):
    def __del__(self, _warnings: Any = None) -> None:
        # aiohttp's complains of connections that a loop left behind when it was closed without its generators; those
        # are closed by _close_orphans. It would also take a forked child's inherited ones away from the parent.
        pass

    # Private to aiohttp, hence the upper bound in pyproject.toml. Its public TraceConfig tells the same, but makes each
    # request take a tenth more of processor time (measured).
    async def _create_connection(self, *args: Any, **kwargs: Any) -> Any:
        attempt = _attempt.get()
        attempt.is_first_on_connection = True
        attempt.is_connected = False
        connection = await super()._create_connection(*args, **kwargs)
        attempt.is_connected = True
        return connection


_attempt: ContextVar[Attempt] = ContextVar("_attempt")


class _Session(NamedTuple):
    session: aiohttp.ClientSession
    owner: AsyncGenerator[aiohttp.ClientSession, None]


class Pool:
    """HTTP connections under one set of TLS settings: one aiohttp session for each event loop that uses it.

    A session is owned by an async generator that was started in its loop, so that ``asyncio.run`` closes it with the
    loop. A forked child makes a pool of its own: ``Shared`` keeps the inherited one, which nothing then touches.

    Args:
        ca_file: a PEM file of the authorities to trust, in place of the system's (``SSL_CERT_FILE``, ``SSL_CERT_DIR``).
        proxy: what requests go through.
    """

    def __init__(self, ca_file: str | None = None, proxy: Proxy | None = None) -> None:
        self._ca_file = ca_file
        self._proxy = proxy
        self._ssl: ssl.SSLContext | None = None
        self._lock = threads.Mutex()
        self._sessions: dict[asyncio.AbstractEventLoop, _Session] = {}
        self._flows: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Flow] = weakref.WeakKeyDictionary()
        self._was_reached = False
        self._closed = False

    def flow(self) -> Flow:
        """Return what shares out the turns of the running loop's requests."""
        loop = asyncio.get_running_loop()
        flow = self._flows.get(loop)
        if flow is None:
            with self._lock:
                flow = self._flows[loop] = Flow()
        return flow

    async def post(
        self, url: URL, body: bytes | Sequence[bytes], headers: Mapping[str, str], attempt: Attempt
    ) -> Reply:
        """Send one request; return the answer, whatever its status.

        Args:
            url: where to.
            body: the body; or its parts, where it is large.
            headers: all but the length, as ``prepared`` made them.
            attempt: says how long all may take, from the connection to the answer's last byte; learns how far it came.

        Raises:
            ConnectError: it never left.
            RequestTimeoutError: no answer came in time.
            BadReplyError: the answer was cut, or is not HTTP.
            TransportError: the connection broke.
        """
        failure: StoreError
        timeout_s = attempt.timeout_s
        _attempt.set(attempt)
        try:
            async with asyncio.timeout(timeout_s):
                session = await self._session()
                data = body if isinstance(body, bytes) else LargeBody(body)
                limits = _limits(min(CONNECT_TIMEOUT_S, timeout_s / 2))
                # By a connection that was kept, unless the connector has to make one: as the flow sends no more than
                # the connector has places for, there is no waiting for one.
                attempt.is_connected = True
                way = self._way(url, headers)
                async with session.post(url, data=data, allow_redirects=False, timeout=limits, **way) as response:
                    self._was_reached = True
                    attempt.status = response.status
                    if response.status == PROXY_REFUSED and self._proxy is not None:
                        raise _refused_by(self._proxy, response.status)
                    attempt.retry_after_s = _retry_after_s(response.headers.get("Retry-After"))
                    return Reply(response.status, await _read(response), response.headers)
        except StoreError:
            raise
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self._was_reached = self._was_reached or attempt.is_connected
            attempt.is_unreached = _is_refused(error) and not self._was_reached
            attempt.is_stale = _is_broken(error) and attempt.is_connected and not attempt.is_first_on_connection
            if attempt.is_connected or not isinstance(error, TimeoutError):
                failure = _translated(error, url, timeout_s, self._proxy)
            elif self._proxy is None:
                failure = ConnectError(f"No connection to {url.origin()} in time: check the network and the endpoint.")
            else:
                failure = ConnectError(f"No connection to {url.origin()} in time {_by(self._proxy, url)}.")
        except Exception as error:  # a session that was closed meanwhile, or what the library did not foresee
            failure = TransportError(
                f"The request to {url.origin()} failed in the HTTP library ({type(error).__name__})."
            )
        if self._closed:
            applied = failure.applied
            failure = StoreClosedError("The store was closed while this request was under way.")
            failure.applied = applied  # closing makes nothing surer
        # Raised out here, so that aiohttp's exception, which can hold the request's headers, is not its context.
        raise failure

    async def aclose(self) -> None:
        """Close every session: that of the running loop now, another loop's on that loop, soon."""
        here = asyncio.get_running_loop()
        for loop, entry in self._take_all():
            if loop is here:
                await entry.owner.aclose()
            else:
                _close_elsewhere(loop, entry)

    def close(self) -> None:
        """As ``aclose``, from a thread without a running loop; what the loop thread owns is closed on return."""
        for loop, entry in self._take_all():
            if loop_thread.owns(loop):
                with suppress(UsageError):  # called on the loop thread itself
                    loop_thread.run(_aclose(entry))
                    continue
            _close_elsewhere(loop, entry)

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        entry = self._sessions.get(loop)
        if entry is not None:
            return entry.session
        self._drop_dead_loops()
        owner = self._own(loop)
        session = await anext(owner)  # does not wait: of several tasks the first makes the session
        with self._lock:
            self._sessions[loop] = _Session(session, owner)
        return session

    async def _own(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[aiohttp.ClientSession, None]:
        if self._closed:
            raise StoreClosedError("The store is closed: make a new one.")
        session = self._new_session()
        owner = os.getpid()
        try:
            yield session
        finally:
            # A child that was forked inside the loop ends it too: what is the parent's is left as it is.
            if os.getpid() == owner:
                with self._lock:
                    self._sessions.pop(loop, None)
                await session.close()
            else:
                keep_for_ever(session)

    def _way(self, url: URL, headers: Mapping[str, str]) -> dict[str, Any]:
        """Return with which headers a request goes, through which proxy, and whom it trusts."""
        proxy = self._proxy
        way: dict[str, Any] = {"headers": headers}
        if proxy is not None:
            way["proxy"] = proxy.url
        if proxy is not None and proxy.authorization is not None:
            login = {"Proxy-Authorization": proxy.authorization}
            # To a tunnel it is said once; else the proxy reads each request.
            way |= {"proxy_headers": login} if url.scheme == "https" else {"headers": CIMultiDict({**headers, **login})}
        if url.scheme == "https" or (proxy is not None and proxy.url.startswith("https:")):
            way["ssl"] = self._context()
        return way

    def _context(self) -> ssl.SSLContext:
        """Return whom to trust. What aiohttp itself trusts was read when it was imported."""
        if self._ssl is None:
            try:
                self._ssl = ssl.create_default_context(cafile=self._ca_file)
            except OSError as error:
                raise ConfigError(
                    f"The file of certificates {self._ca_file!r} cannot be read"
                    f" ({error.strerror or type(error).__name__}): give a PEM file."
                ) from error
        return self._ssl

    def _new_session(self) -> aiohttp.ClientSession:
        if self._ca_file is not None:
            self._context()  # a file that cannot be read is told, also where it is not needed
        return aiohttp.ClientSession(
            connector=_Connector(
                limit=WIDTH_MAX,
                keepalive_timeout=KEEP_ALIVE_S,
                resolver=aiohttp.ThreadedResolver(),  # whose errors say whether a name is unknown or only not known yet
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def _take_all(self) -> list[tuple[asyncio.AbstractEventLoop, _Session]]:
        with self._lock:
            self._closed = True
            taken = list(self._sessions.items())
            self._sessions = {}
        return taken

    def _drop_dead_loops(self) -> None:
        with self._lock:
            dead = [loop for loop in self._sessions if loop.is_closed()]
            entries = [self._sessions.pop(loop) for loop in dead]
        for entry in entries:
            _close_orphans(entry)


def prepared(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers in the form that the HTTP library would make of them with each request."""
    return CIMultiDict(headers)


@lru_cache(maxsize=4)
def _limits(connect_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect_s)


async def _aclose(entry: _Session) -> None:
    await entry.owner.aclose()


def _close_elsewhere(loop: asyncio.AbstractEventLoop, entry: _Session) -> None:
    def spawn() -> None:
        # Not the generator: the loop may be ending, and about to close it itself.
        task = loop.create_task(entry.session.close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    try:
        loop.call_soon_threadsafe(spawn)
    except RuntimeError:  # the loop is closed
        _close_orphans(entry)


def _close_orphans(entry: _Session) -> None:
    """Close the sockets of a session whose loop was closed without closing its async generators."""
    connector = entry.session.connector
    entry.session.detach()
    for connections in list(getattr(connector, "_conns", {}).values()):
        for protocol, _ in connections:
            transport = protocol.transport
            # asyncio has no way to close a transport without its loop; uvloop closed them with the loop.
            with suppress(Exception):
                getattr(transport, "_call_connection_lost")(None)  # noqa: B009


async def _read(response: aiohttp.ClientResponse) -> bytes | bytearray:
    length = response.content_length
    is_compressed = "Content-Encoding" in response.headers
    max_bytes = COMPRESSED_REPLY_MAX_BYTES if is_compressed else REPLY_MAX_BYTES
    if length is not None and length <= max_bytes and not is_compressed:
        return await (response.read() if length < _LARGE_REPLY_BYTES else read_large(response, length))
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > max_bytes:
            response.close()
            error = BadReplyError(
                f"The answer is longer than {max_bytes:,} bytes: ask for fewer keys at once.",
                http_status=response.status,
            )
            error.retryable = False
            raise error
        parts.append(part)
    return b"".join(parts)


def _is_refused(error: Exception) -> bool:
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionRefusedError)


def _is_broken(error: Exception) -> bool:
    """Tell whether a connection that was made ended before the head of an answer came."""
    broken = aiohttp.ServerDisconnectedError | aiohttp.ClientConnectionResetError | aiohttp.ClientOSError
    return isinstance(error, broken) and not isinstance(error, aiohttp.ClientConnectorError)


def _retry_after_s(header: str | None) -> float | None:
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    except (ValueError, OverflowError):
        return None


def _by(proxy: Proxy, url: URL) -> str:
    return f"through the proxy {proxy.url}: check {proxy.source}, or name {url.host} in NO_PROXY"


def _refused_by(proxy: Proxy, status: int) -> ConnectError:
    how = "give user and password in its URL" if status == PROXY_REFUSED else "ask who runs it, or try later"
    failure = ConnectError(f"The proxy {proxy.url} of {proxy.source} refused the request (HTTP {status}): {how}.")
    failure.retryable = status >= 500
    return failure


def _translated(error: Exception, url: URL, timeout_s: float, proxy: Proxy | None = None) -> StoreError:
    host = url.origin()
    if isinstance(error, aiohttp.ClientHttpProxyError) and proxy is not None:
        return _refused_by(proxy, error.status)
    if isinstance(error, aiohttp.ClientSSLError):
        failure = ConnectError(
            f"No secure connection to {host}: {error}. Check the endpoint, or have SSL_CERT_FILE name a PEM file of the"
            " authorities to trust."
        )
        failure.retryable = False
        return failure
    if isinstance(error, aiohttp.ClientConnectorError):
        advice = ": check the endpoint, and that it is up" if proxy is None else f" {_by(proxy, url)}"
        failure = ConnectError(f"No connection to {host} ({error.os_error or error}){advice}.")
        cause = error.os_error
        failure.retryable = not (isinstance(cause, socket.gaierror) and cause.errno in _UNKNOWN_NAME)
        return failure
    if isinstance(error, TimeoutError):
        return RequestTimeoutError(
            f"No answer from {host} within {timeout_s:.3g} s: raise request_timeout_s and deadline_s, or try later."
        )
    if isinstance(error, aiohttp.InvalidURL):
        return ConfigError("The endpoint is not a URL that HTTP can use: write https://HOST or http://HOST:PORT.")
    if isinstance(error, aiohttp.ClientPayloadError):
        return BadReplyError(f"The answer from {host} was cut off before its end.")
    if isinstance(error, aiohttp.ClientResponseError):
        return BadReplyError(f"The answer from {host} is not HTTP ({error.message}): check the endpoint.")
    if _is_broken(error):
        return TransportError(f"{host} ended the connection before it answered ({type(error).__name__}).")
    return TransportError(f"The connection to {host} failed ({type(error).__name__}).")


_closing: set[asyncio.Task[None]] = set()
keep_for_ever(_closing)  # collected as the interpreter ends, those of loops that run no more would complain
