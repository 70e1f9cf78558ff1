"""Servers that speak MongoDB's protocol, started by the tests: none of MongoDB's own can be installed from a registry.

SecantusDB (PyPI, WiredTiger inside) is right and slow; mongo-java-server (Maven, in memory) is quick, and has no
sessions. Neither removes anything by a TTL index: the second cannot, and SecantusDB is told not to. Its sweep, each
60 s, beside a writer now and then left that writer in conflict for good (0.7.0b3 tries again without an end, and logs
"retrying on write conflicts"): with a sweep each 0.5 s two calls in 28 had no answer within 25 s, without it none of
63.

SecantusDB's cache is larger than all that a session of tests writes. WiredTiger has the threads that read and write
make room as soon as a tenth of the cache holds updates; where another connection's old snapshot still needs these,
they wait for ever, with SecantusDB's one lock in their hands (seen by the stacks of the threads: with a cache of 256
MB, after a write of 16 MB, each later request had no answer).
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cassandra_node import free_ports, java_version

SERVERS = ["java", "secantus"]

READY_WITHIN_S = 120.0

HOME = Path(__file__).parent / "mongodb" / "server"
VERSION = "1.47.0"


def missing(server: str) -> str | None:
    """Return why a server cannot be started on this machine, or None."""
    try:
        import pymongo  # noqa: F401
    except ImportError:
        return "pymongo is missing: pip install pymongo"
    if server == "secantus":
        present = importlib.util.find_spec("secantus") is not None
        return None if present else "SecantusDB is missing: pip install SecantusDB==0.7.0b3 (GPL-2.0, tests only)"
    if java_version() < 17 or shutil.which("javac") is None:
        return "mongo-java-server needs a JDK of Java 17 (openjdk-17-jdk-headless)"
    if not (_cache() / "complete").exists() and shutil.which("mvn") is None:
        return "fetching mongo-java-server needs Maven (mvn)"
    return None


@contextmanager
def running_server(server: str, directory: Path, port: int = 0) -> Iterator[str]:
    """Start a server whose data are in a directory, on a free port if none is given; give its URL, and end it."""
    port = port or free_ports("127.0.0.1", 1)[0]
    command = _secantus_command(port, directory) if server == "secantus" else _java_command(port)
    with open(directory / "server.log", "w") as log:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_until_ready(process, port, directory / "server.log")
            yield f"mongodb://127.0.0.1:{port}/?directConnection=true"
        finally:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start:\n{log.read_text()[-3_000:]}")
        time.sleep(0.05)


def _secantus_command(port: int, directory: Path) -> list[str]:
    return [sys.executable, os.fspath(HOME / "secantus_for_tests.py"), str(port), str(directory / "data")]


def _cache() -> Path:
    root = os.environ.get("LCKV_TEST_CACHE") or Path.home() / ".cache" / "langchain-kv"
    return Path(root) / f"mongo-java-server-{VERSION}"


def _java_command(port: int) -> list[str]:
    jars = os.fspath(_fetched() / "*")
    return ["java", "-Xmx512m", "-cp", jars, os.fspath(HOME / "MongoServerForTests.java"), str(port)]


def _fetched() -> Path:
    """Return the directory of the jars, fetched by the first process that needs them."""
    cache = _cache()
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "fetching", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cache / "complete").exists():
            goal = ["dependency:copy-dependencies", f"-DoutputDirectory={cache / 'jars'}"]
            subprocess.run(["mvn", "-q", "-B", "-f", os.fspath(HOME / "pom.xml"), *goal], check=True)
            (cache / "complete").touch()
    return cache / "jars"
