"""Running the server: in the foreground until a signal, or on a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from langchain_kv.engines.base import Engine
from langchain_kv.errors import ConfigError
from langchain_kv.runtime import threads
from langchain_kv.server.http.app import DataAPI
from langchain_kv.server.http.connections import Application, Connection
from langchain_kv.server.http.pool import Pool
from langchain_kv.values.secret import Secret

try:
    import uvloop
except ImportError:  # no wheel for this platform
    _new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    _new_event_loop = uvloop.new_event_loop

__all__ = ["SHUTDOWN_S", "run_app_in_thread", "run_in_thread", "serve"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_BACKLOG: Final = 2048
SHUTDOWN_S: Final = 5.0
"""Seconds that requests in flight are given to end."""


def serve(application: Application, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; requests in flight end first, for at most 5 seconds.

    Args:
        application: answers the requests: a ``DataAPI``.
        host: the address to listen at.
        port: the port to listen at; 0 takes a free one.
        on_ready: called with the server's URL once it answers, and only then.

    Raises:
        ConfigError: nobody can listen at this address and port.
    """
    with _listening(host, port) as listener:
        running = _Running(application, listener, lambda: on_ready(_url_of(listener)))
        with _stopping_at_signals(running):
            running.run()


@contextlib.contextmanager
def run_in_thread(engine: Engine, token: str, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve an engine on a thread of this process for the length of a ``with`` block; its value is the server's URL.

    Raises:
        ConfigError: no client could send the token, or nobody can listen at this address and port.
    """
    token = Secret(token)
    with run_app_in_thread(DataAPI(engine, token), host, port) as url:
        yield url


@contextlib.contextmanager
def run_app_in_thread(application: Application, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """As ``run_in_thread``, with an application in place of an engine: a ``DataAPI``, or one around it."""
    with _listening(host, port) as listener:
        ready = threads.taken_lock()
        failures: list[BaseException] = []
        running = _Running(application, listener, ready.release)

        def run() -> None:
            try:
                running.run()
            except BaseException as error:
                failures.append(error)
                if not running.has_answered:
                    ready.release()

        thread: threads.Thread | None = None
        try:
            thread = threads.start(run, "langchain-kv server")
            ready.wait()
            if failures:
                raise ConfigError("The server could not be started.") from failures[0]
            yield _url_of(listener)
        finally:
            running.stop()  # also where Ctrl-C came after the start of the thread and before it was noted
            if thread is not None:
                thread.join()


class _Running:
    """A server and its event loop."""

    def __init__(self, application: Application, listener: socket.socket, on_ready: Callable[[], None]) -> None:
        self._application = application
        self._listener = listener
        self.has_answered = False
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted: asyncio.Event
        self._serving: asyncio.Task[None] | None = None
        self._is_stopping = False

    def run(self) -> None:
        """Serve until ``stop`` is called."""
        with asyncio.Runner(loop_factory=_new_event_loop) as runner:
            runner.run(self._run())

    def stop(self) -> None:
        """End gently; safe from any thread, from a signal's handler, before ``run`` and after it."""
        self._is_stopping = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._wanted.set)

    def handle(self, number: int, _: Any) -> None:
        """Handle a signal: stop gently at the first, at once at a second SIGINT."""
        if self._is_stopping and number == signal.SIGINT and self._loop is not None and self._serving is not None:
            self._loop.call_soon_threadsafe(self._serving.cancel)
        self.stop()

    async def _run(self) -> None:
        self._wanted = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._serving = self._loop.create_task(self._serve())
        if self._is_stopping:
            self._wanted.set()
        with contextlib.suppress(asyncio.CancelledError):
            await self._serving

    async def _serve(self) -> None:
        pool = Pool(_most_connections())
        acceptor = await asyncio.get_running_loop().create_server(
            lambda: Connection(pool, self._application), sock=self._listener, backlog=_BACKLOG
        )
        self.has_answered = True
        self._on_ready()
        await self._wanted.wait()
        for _ in range(3):  # turns in which asyncio makes connections of what it accepted: once closed, it does no more
            await asyncio.sleep(0)
        acceptor.close()
        await pool.stop(SHUTDOWN_S)


def _most_connections() -> int:
    """Return how many connections there may be: three quarters of the files that this process may have open."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return 10_000
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 10_000 if limit == resource.RLIM_INFINITY else max(8, min(10_000, limit * 3 // 4))


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Listen before anything runs, so that a port in use is an error here and a free one is known."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen at {host}, port {port}: {error.strerror or error}. Choose another port; 0 takes a free one."
        ) from None
    with listener:
        yield listener


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _stopping_at_signals(running: _Running) -> Iterator[None]:
    """Let the first signal stop the server gently, a second SIGINT at once; handlers that were there come back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, running.handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
