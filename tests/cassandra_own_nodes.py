"""Nodes of Apache Cassandra that one test has for itself, may kill, and start again with what they had stored."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cassandra_node import FLAGS, READY_WITHIN_S, SETTINGS, driver_of, fetch, free_ports, java_version, start_process

SEVERAL_MAX_TRIES = 20

# A node that is killed has to find again what it acknowledged, so nothing is left unsynced, of system tables neither.
DURABLE_FLAGS = FLAGS.replace("-Dcassandra.unsafesystem=true ", "").replace("512m", "320m")
LOGIN = """\
authenticator: PasswordAuthenticator
authorizer: CassandraAuthorizer
role_manager: CassandraRoleManager
"""
PERIODIC = """\
commitlog_sync: periodic
commitlog_sync_period: 10000ms
"""


class OwnNode:
    """A node that asks for no login and writes to the disk before it acknowledges.

    Args:
        home: an empty directory of its own.
        host: an address of this machine; the nodes of one cluster have the same ports on different ones.
        port: where it speaks CQL.
        storage_port: where it speaks to other nodes.
        seed: the host of the cluster's first node.
        more: further lines of its cassandra.yaml.
    """

    def __init__(self, home: Path, host: str, port: int, storage_port: int, *, seed: str = "", more: str = "") -> None:
        self.home = home
        self.host = host
        self.port = port
        settings = SETTINGS.format(host=host, port=port, storage_port=storage_port, in_max=1_000)
        seeds = f'seeds: "{seed or host}:{storage_port}"'
        self._settings = (
            settings.replace(LOGIN, "").replace(PERIODIC, "commitlog_sync: batch\n").replace("20s", "5s")
            + "auto_bootstrap: false\n"
            + more
        ).replace(f'seeds: "{host}:{storage_port}"', seeds)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, for the first time or again; ``wait`` waits until it listens."""
        with open(self.home / "node.log", "a") as log:
            self._process = start_process(self.home, fetch(), java_version(), self._settings, log, DURABLE_FLAGS)

    def wait(self) -> None:
        """Return when it speaks CQL. One that ends, as where others were too busy to answer it, is started again.

        Raises:
            RuntimeError: it is not ready in time; the text holds the end of its log.
        """
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline and self._process is not None:
            if self._process.poll() is not None:
                self.start()
            with socket.socket() as probe:
                if probe.connect_ex((self.host, self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"The node on {self.host} is not there:\n{(self.home / 'node.log').read_text()[-4_000:]}")

    def kill(self) -> None:
        """End it at once (SIGKILL), as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()


@contextmanager
def own_nodes(home: Path, count: int = 1, *, more: str = "") -> Iterator[list[OwnNode]]:
    """Give a running cluster of so many nodes, on 127.0.0.1 and the next addresses; it is killed at the end.

    Args:
        home: an empty directory.
        count: of nodes.
        more: further lines of each node's cassandra.yaml.
    """
    hosts = [f"127.0.0.{number}" for number in range(1, count + 1)]
    port, storage_port = _ports(hosts)
    nodes = []
    for number, host in enumerate(hosts):
        (home / host).mkdir()
        token = f"initial_token: {-(2**63) + number * 2**64 // count + 1}\n"
        nodes.append(OwnNode(home / host, host, port, storage_port, seed=hosts[0], more=token + more))
    try:
        for node in nodes:
            node.start()
            node.wait()
        if count > 1:
            _wait_for_each_other(nodes)
        yield nodes
    finally:
        for node in nodes:
            node.kill()


def _wait_for_each_other(nodes: Sequence[OwnNode]) -> None:
    """Return when each node knows of all others, and all of the same tables.

    A node listens before it has heard of those that came after it: a table that is made through it then is not waited
    for on them, and the first statement that reaches one fails with INCOMPATIBLE_SCHEMA (seen).
    """
    deadline = time.monotonic() + READY_WITHIN_S
    for node in nodes:
        cluster = driver_of(node.host, node.port)
        try:
            session = cluster.connect()
            while True:
                known = [
                    row.schema_version
                    for table in ("local", "peers")
                    for row in session.execute(f"SELECT tokens, schema_version FROM system.{table}")
                    if row.tokens
                ]
                if len(known) == len(nodes) and len(set(known)) == 1:
                    break
                if time.monotonic() > deadline:
                    raise RuntimeError(f"The node on {node.host} knows of {len(known)} nodes, not of {len(nodes)}")
                time.sleep(0.1)
        finally:
            cluster.shutdown()


def _ports(hosts: Sequence[str]) -> tuple[int, int]:
    """Return two ports that are free on every host."""
    found: list[int] = []
    for _ in range(SEVERAL_MAX_TRIES):
        (port,) = free_ports(hosts[0], 1)
        if port not in found and all(_is_free(host, port) for host in hosts):
            found.append(port)
        if len(found) == 2:
            return found[0], found[1]
    raise RuntimeError(f"No two ports are free on all of {', '.join(hosts)}")


def _is_free(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True
