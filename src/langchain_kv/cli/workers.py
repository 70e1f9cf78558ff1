"""``lckv serve --workers``: processes that share a port's connections, and the parent that keeps them running.

The parent accepts, and deals the connections to the workers in turn, so that a client's pool of them is shared out
evenly. One socket that all workers accept from does not do that: of 16 connections made at once one worker took all
(measured). A socket for each (SO_REUSEPORT) deals by hash, and lets a second server listen at a port in use.

A worker is a new interpreter, not a fork: connections to a file must not be inherited. It is a process group of its
own, so that Ctrl-C in a terminal reaches the parent only.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from langchain_kv.cli.main import note
from langchain_kv.errors import EngineError
from langchain_kv.server.http.running import SHUTDOWN_S, listening, url_of
from langchain_kv.values.secret import Secret

__all__ = ["serve_with_workers"]

_TRIES: Final = 3
"""How many times in a row a worker may end before it answers."""

_KILL_AFTER_S: Final = 2 * SHUTDOWN_S
"""Seconds after which a worker that was told to stop is killed: unless it hangs, it ended long before."""


def serve_with_workers(
    count: int, db: str, token: str, *, host: str, port: int, on_ready: Callable[[str], None]
) -> None:
    """Serve by several processes until SIGINT or SIGTERM; requests in flight end first, for at most 5 seconds.

    A worker that ends by itself is replaced.

    Args:
        count: how many processes.
        db: the URL of what each of them opens.
        token: what clients send as their token.
        host: the address to listen at.
        port: the port to listen at; 0 takes a free one.
        on_ready: called once, with the server's URL, when all workers answer.

    Raises:
        ConfigError: nobody can listen at this address and port.
        EngineError: workers cannot be started, or end again and again before they answer.
    """
    token = Secret(token)
    # Not in asyncio's debug mode, which would report that starting a process takes a while.
    with listening(host, port) as listener, asyncio.Runner(debug=False) as runner:
        runner.run(_Workers(count, db, token, listener, on_ready).run())


class _Workers:
    """The processes, and what is known of them. All of it happens on one event loop."""

    def __init__(
        self, count: int, db: str, token: str, listener: socket.socket, on_ready: Callable[[str], None]
    ) -> None:
        self._count = count
        self._db = db
        self._token = Secret(token)
        self._listener = listener
        self._on_ready: Callable[[str], None] | None = on_ready
        self._channels: dict[Process, socket.socket] = {}
        self._answering: deque[socket.socket] = deque()
        self._stopping = False
        self._failure: EngineError | None = None

    async def run(self) -> None:
        """Keep the workers running until a signal or a failure; return or raise when none is left."""
        self._listener.setblocking(False)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._handle, number)
        keepers = [asyncio.create_task(self._keep_one()) for _ in range(self._count)]
        try:
            await asyncio.gather(*keepers)
        finally:
            self._stop()
            await asyncio.wait(keepers)
        if self._failure is not None:
            raise self._failure

    async def _keep_one(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                process = await self._start()
            except OSError as error:
                self._fail(f"A worker cannot be started: {error.strerror or error}.")
                return
            failures = 0 if await self._attend(process) else failures + 1
            if self._stopping:
                return
            if failures == _TRIES:
                self._fail(f"A worker ended {_TRIES} times before it answered: the server ends.")
                return
            note(f"worker {process.pid} ended ({_cause(process)}); another one takes its place")

    async def _start(self) -> Process:
        """Start a worker. The token and a password in the URL go by its stdin, where ``ps`` does not show them."""
        channel, stdin = socket.socketpair()
        with stdin:
            process = await self._execute(stdin)
        self._channels[process] = channel
        with suppress(OSError):  # it ended already
            channel.sendall(json.dumps({"db": self._db, "token": self._token}).encode() + b"\n")
        channel.setblocking(False)
        return process

    async def _execute(self, stdin: socket.socket) -> Process:
        return await asyncio.create_subprocess_exec(
            # What the parent can import the worker can, and (-P) nothing else that the working directory has.
            *(sys.executable, "-P", "-m", "langchain_kv.cli.worker"),
            stdin=stdin.fileno(),
            stdout=PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            process_group=0,
        )

    async def _attend(self, process: Process) -> bool:
        """Wait until the worker ends; return whether it ever answered."""
        channel = self._channels[process]
        if self._stopping:
            channel.close()
        try:
            answers = bool(await process.stdout.readline())  # type: ignore[union-attr] # a pipe
            if answers and not self._stopping:
                self._add(channel)
            await process.wait()
        finally:
            self._remove(channel)
            del self._channels[process]
        return answers

    # -- dealing ------------------------------------------------------------------------------------------------------

    def _add(self, channel: socket.socket) -> None:
        self._answering.append(channel)
        asyncio.get_running_loop().add_reader(self._listener, self._deal)
        if len(self._answering) == self._count and self._on_ready is not None:
            on_ready, self._on_ready = self._on_ready, None
            on_ready(url_of(self._listener))

    def _remove(self, channel: socket.socket) -> None:
        channel.close()
        if channel in self._answering:
            self._answering.remove(channel)
        if not self._answering:  # connections wait in the kernel until another one answers
            asyncio.get_running_loop().remove_reader(self._listener)

    def _deal(self) -> None:
        """Accept one connection and send it to the worker whose turn it is, or to the next that takes it."""
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the client left again
            return
        with connection:
            for _ in range(len(self._answering)):
                channel = self._answering[0]
                self._answering.rotate(-1)
                with suppress(OSError):  # it is ending, or hangs and its buffer is full
                    socket.send_fds(channel, [b"c"], [connection.fileno()])
                    return

    # -- the end ------------------------------------------------------------------------------------------------------

    def _handle(self, number: int) -> None:
        """Stop gently at the first signal, at once at a second SIGINT."""
        if self._stopping and number == signal.SIGINT:
            self._kill()
        self._stop()

    def _fail(self, message: str) -> None:
        self._failure = EngineError(message)
        self._stop()

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        self._answering.clear()
        for channel in self._channels.values():
            channel.close()
        loop.call_later(_KILL_AFTER_S, self._kill)

    def _kill(self) -> None:
        for process in self._channels:
            with suppress(ProcessLookupError):
                process.kill()


def _cause(process: Process) -> str:
    code = process.returncode
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
