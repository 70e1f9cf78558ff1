"""What the contenders talk to: the local server, a network that adds latency, and Redis; each a process of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["TOKEN", "data_api", "latency", "redis"]

TOKEN = "benchmarks"


@contextmanager
def data_api(target: str) -> Iterator[tuple[str, int]]:
    """Serve the target by ``lckv serve``; yield its URL and process id."""
    command = [sys.executable, "-m", "langchain_kv.cli", "serve", "--db", target, "--port", "0"]
    with _running(command, {"LCKV_TOKEN": TOKEN}, "listening on ") as (url, process):
        yield url, process.pid


@contextmanager
def latency(url: str, delay_s: float) -> Iterator[str]:
    """Yield the URL of a way to the server on which every byte takes so many seconds longer, each way."""
    if not delay_s:
        yield url
        return
    command = [sys.executable, "-m", "benchmarks.services", url, str(delay_s)]
    with _running(command, {}, "listening on ") as (slow_url, _):
        yield slow_url


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run a redis-server with its defaults for durability (snapshots only); yield its URL.

    Raises:
        FileNotFoundError: there is none on this machine.
    """
    if shutil.which("redis-server") is None:
        raise FileNotFoundError("no redis-server on this machine")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with _running(command, {}, "Ready to accept connections", exact=False):
        yield f"redis://127.0.0.1:{port}"


@contextmanager
def _running(
    command: list[str], environment: dict[str, str], ready: str, *, exact: bool = True
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if ready in line:
                yield line.partition(ready)[2].strip() if exact else line, process
                break
        else:
            raise RuntimeError(f"{command[:4]} ended before it was ready")
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        process.wait(30)


# -- the way that takes longer ----------------------------------------------------------------------------------


class _End(asyncio.Protocol):
    """One end of a connection: what it receives leaves at the other end ``delay_s`` later, in order."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.other: asyncio.Transport | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self.delay_s, self._pass_on, data)

    def connection_lost(self, _: Exception | None) -> None:
        asyncio.get_running_loop().call_later(self.delay_s, lambda: self.other and self.other.close())

    def _pass_on(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            self.other.write(data)


async def _lengthen(url: str, delay_s: float) -> None:
    host, port = url.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[None]] = set()

    class Near(_End):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            task = loop.create_task(self.connect())
            connecting.add(task)
            task.add_done_callback(connecting.discard)

        async def connect(self) -> None:
            far = _End(self.delay_s)
            far.other = self.transport  # type: ignore[assignment]
            self.other, _ = await loop.create_connection(lambda: far, host, int(port))
            for data in self.early:
                self.other.write(data)

    server = await loop.create_server(lambda: Near(delay_s), "127.0.0.1", 0)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    uvloop.run(_lengthen(sys.argv[1], float(sys.argv[2])))
