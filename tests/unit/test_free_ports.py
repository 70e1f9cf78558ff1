"""The ports on which the tests start servers."""

from __future__ import annotations

from cassandra_node import free_ports
from redis_node import free_port


def test_a_port_that_is_free_is_none_that_a_connection_could_take_meanwhile() -> None:
    ports = [*free_ports("127.0.0.1", 20), free_port()]
    assert len(set(ports[:20])) == 20
    assert all(1_024 <= port < 32_768 for port in ports)
