"""Running the server: in the foreground until a signal, or on a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any, Final

import uvicorn

from langchain_kv.engines.base import Engine
from langchain_kv.errors import ConfigError
from langchain_kv.server.http.app import create_app
from langchain_kv.server.http.connections import HEAD_MAX_BYTES, Connection, Outbox
from langchain_kv.values.secret import Secret

__all__ = [
    "HEAD_MAX_BYTES",
    "SHUTDOWN_S",
    "listening",
    "run_app_in_thread",
    "run_in_thread",
    "serve",
    "serve_dealt",
    "url_of",
]

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_BACKLOG: Final = 2048
_KEEP_ALIVE_S: Final = 75
SHUTDOWN_S: Final = 5
"""Seconds that requests in flight are given to end."""


def serve(engine: Engine, token: str, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve an engine until SIGINT or SIGTERM; requests in flight end first, for at most 5 seconds.

    Args:
        engine: where documents are kept; the caller closes it.
        token: what clients send as their token.
        host: the address to listen at.
        port: the port to listen at; 0 takes a free one.
        on_ready: called with the server's URL once it answers, and only then.

    Raises:
        ConfigError: the token is empty, or nobody can listen at this address and port.
    """
    token = Secret(token)
    with listening(host, port) as listener:
        server = _Server(create_app(engine, token), lambda: on_ready(url_of(listener)))
        with _stopping_at_signals(server):
            _run(server, listener)


def serve_dealt(engine: Engine, token: str, channel: socket.socket, on_ready: Callable[[], None]) -> None:
    """As ``serve``, of connections that another process accepts and sends by a Unix socket, until that one's end.

    Args:
        engine: where documents are kept; the caller closes it.
        token: what clients send as their token.
        channel: where connections come from, each with one byte.
        on_ready: called when connections are answered.

    Raises:
        ConfigError: the token is empty.
    """
    token = Secret(token)
    server = _Server(create_app(engine, token), on_ready, channel)
    with _stopping_at_signals(server):
        _run(server)


@contextlib.contextmanager
def run_in_thread(engine: Engine, token: str, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve an engine on a thread of this process for the length of a ``with`` block; its value is the server's URL.

    Raises:
        ConfigError: the token is empty, or nobody can listen at this address and port.
    """
    token = Secret(token)
    with run_app_in_thread(create_app(engine, token), host, port) as url:
        yield url


@contextlib.contextmanager
def run_app_in_thread(app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """As ``run_in_thread``, with an application in place of an engine: ``create_app``'s, or one around it.

    It finds ``hang_up``, a function that closes the connection without a reply, in its scope's
    ``["extensions"]["langchain_kv"]``.
    """
    with listening(host, port) as listener:
        ready = threading.Event()
        failures: list[BaseException] = []
        server = _Server(app, ready.set)

        def run() -> None:
            try:
                _run(server, listener)
            except BaseException as error:
                failures.append(error)
            finally:
                ready.set()

        thread = threading.Thread(target=run, name="langchain-kv server", daemon=True)
        thread.start()
        try:
            ready.wait()
            if failures:
                raise ConfigError("The server could not be started.") from failures[0]
            yield url_of(listener)
        finally:
            server.should_exit = True
            thread.join()


class _Server(uvicorn.Server):
    """uvicorn's server without its handling of signals, and with a word once it answers."""

    def __init__(self, app: Any, on_ready: Callable[[], None], channel: socket.socket | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=functools.partial(Connection, outbox=Outbox()),  # type: ignore[arg-type] # only called
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=SHUTDOWN_S,
            )
        )
        self._on_ready = on_ready
        self._channel = channel
        self._connecting: set[asyncio.Task[Any]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._channel is not None:
            self._channel.setblocking(False)
            asyncio.get_running_loop().add_reader(self._channel, self._take, self._channel)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            with contextlib.suppress(OSError):  # the other end is gone
                self._channel.shutdown(socket.SHUT_RD)  # what would be sent now is refused, and goes elsewhere
        await super().shutdown(sockets)

    def _take(self, channel: socket.socket) -> None:
        """Take the next connection from the channel; at its end, stop gently."""
        loop = asyncio.get_running_loop()
        try:
            byte, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        except BlockingIOError:
            return
        except OSError:  # the other end was killed
            byte, descriptors = b"", []
        if not byte:
            loop.remove_reader(channel)
            self.should_exit = True
        for descriptor in descriptors:
            client = socket.socket(fileno=descriptor)
            client.setblocking(False)
            with contextlib.suppress(OSError):  # the client left again
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(loop.connect_accepted_socket(self._protocol, client))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _protocol(self) -> asyncio.Protocol:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _run(server: _Server, *listeners: socket.socket) -> None:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(server.serve(sockets=list(listeners)))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # no wheel for this platform
        return asyncio.new_event_loop
    return uvloop.new_event_loop


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Listen before anything runs, so that a port in use is an error here and a free one is known.

    Raises:
        ConfigError: nobody can listen at this address and port.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen at {host}, port {port}: {error.strerror or error}. Choose another port; 0 takes a free one."
        ) from None
    with listener:
        yield listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of what listens there."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _stopping_at_signals(server: _Server) -> Iterator[None]:
    """Let the first signal stop the server gently, a second SIGINT at once; handlers that were there come back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, server.handle_exit) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
