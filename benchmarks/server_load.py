"""How many commands a second the local server answers: ``python -m benchmarks.server_load``.

The load comes from a process of its own, over raw sockets, with requests that were written beforehand: it takes a
fraction of what the server takes, and belongs on the other core. Beside each rate stands what the server's processes
spent of their processors' time for one command (Linux): what a busy machine does not change.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.services import TOKEN, data_api

__all__ = ["report"]

CONNECTIONS = 16
PAD = "x" * 300
COLLECTION = "load"


class _Client(asyncio.Protocol):
    """One connection that sends the next request as soon as it has an answer."""

    def __init__(self, left: list[bytes], done: asyncio.Future[None], errors: list[bytes]) -> None:
        self._left, self._done, self._errors = left, done, errors
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._next()

    def _next(self) -> None:
        if self._left:
            self._transport.write(self._left.pop())
        elif not self._done.done():
            self._transport.close()
            self._done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        if b'"errors"' in self._buffer or not self._buffer.startswith(b"HTTP/1.1 200"):
            self._errors.append(self._buffer[:300])
        self._buffer = b""
        self._next()

    def connection_lost(self, _: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(ConnectionError("the server ended a connection"))


def _request(port: int, path: str, command: dict[str, Any]) -> bytes:
    body = json.dumps(command, separators=(",", ":")).encode()
    head = f"POST /v1/default_keyspace{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nToken: {TOKEN}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def _run(port: int, requests: list[bytes]) -> float:
    loop = asyncio.get_running_loop()
    errors: list[bytes] = []
    ends = [loop.create_future() for _ in range(min(CONNECTIONS, len(requests)))]
    count, started = len(requests), time.perf_counter()
    for end in ends:
        await loop.create_connection(lambda end=end: _Client(requests, end, errors), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*ends)
    if errors:
        raise RuntimeError(errors[0].decode("utf-8", "replace"))
    return count / (time.perf_counter() - started)


def _cpu_s(pid: int) -> float:
    """Return the seconds of processor time that a process and its children have had; 0 where nobody can tell."""
    folder = Path(f"/proc/{pid}")
    if not folder.exists():
        return 0.0
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    children = (folder / f"task/{pid}/children").read_text().split()
    own_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own_s + sum(_cpu_s(int(child)) for child in children)


def _documents(start: int, round_: int) -> list[dict[str, Any]]:
    return [{"_id": f"k{round_}-{start + number:07}", "n": number, "text": PAD} for number in range(100)]


async def _load(port: int, pid: int, rounds: int) -> None:
    options = {"name": COLLECTION, "options": {"indexing": {"allow": ["_id"]}}}
    await _run(port, [_request(port, "", {"createCollection": options})])
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}
    path = f"/{COLLECTION}"
    for round_ in range(rounds):
        work = {
            "insertMany of 100, documents": (
                100,
                [{"insertMany": {"documents": _documents(each * 100, round_)}} for each in range(200)],
            ),
            "findOne": (1, [{"findOne": {"filter": {"_id": f"k0-{each:07}"}}} for each in range(10_000)]),
            "find, a page of 50, documents": (50, [{"find": {}}] * 1000),
            "find of 100 ids, documents": (
                100,
                [
                    {"find": {"filter": {"_id": {"$in": [f"k0-{each * 7 + other:07}" for other in range(100)]}}}}
                    for each in range(1000)
                ],
            ),
            "findOneAndReplace": (
                1,
                [
                    {"findOneAndReplace": {"filter": {"_id": f"k0-{each:07}"}, "replacement": {"n": round_, "t": PAD}}}
                    for each in range(2000)
                ],
            ),
        }
        for name, (size, commands) in work.items():
            requests = [_request(port, path, command) for command in commands]
            before_s = _cpu_s(pid)
            rates.setdefault(name, []).append(size * await _run(port, requests))
            costs.setdefault(name, []).append((_cpu_s(pid) - before_s) / len(commands))
    for name, found in rates.items():
        rate = f"{statistics.median(found):,.0f} ({min(found):,.0f}-{max(found):,.0f})"
        print(f"{name} | {rate} | {statistics.median(costs[name]) * 1e6:,.0f} us |")


def report(rounds: int = 5) -> str:
    """Load a server on a file and one in memory; return a table.

    Args:
        rounds: how often each command's rate is taken; their median is told, the least and the most.
    """
    lines = [
        "### The local server",
        "",
        f"One server, on a core of its own; {CONNECTIONS} connections from another process.",
        "",
        "| on | command, what is counted | a second | processor time of a command |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        targets = [f"sqlite:{Path(folder) / 'load.db'}", "memory:"]
        for target in targets:
            with data_api(target) as (url, pid):
                cores = sorted(os.sched_getaffinity(0))
                if len(cores) > 1:
                    os.sched_setaffinity(pid, cores[:1])
                load = ["--load", url.rpartition(":")[2], "--server", str(pid), "--rounds", str(rounds)]
                command = [sys.executable, "-m", "benchmarks.server_load", *load]
                told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                lines += [f"| {target.partition(':')[0]} | {line}" for line in told.splitlines()]
    return "\n".join([*lines, ""])


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="benchmarks.server_load", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--load", type=int, default=0, metavar="PORT", help="only load what listens there")
    parser.add_argument("--server", type=int, default=os.getpid(), metavar="PID", help="of the server that is loaded")
    options = parser.parse_args()
    if options.load:
        import uvloop

        uvloop.run(_load(options.load, options.server, options.rounds))
        return
    print(report(options.rounds))


if __name__ == "__main__":
    main()
