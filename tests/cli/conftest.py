"""What the tests of the command share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from running import Lckv, lckv_in_this_process
from served import LCKV, Server, environment


@pytest.fixture
def lckv(capsysbinary: pytest.CaptureFixture[bytes]) -> Lckv:
    """Run a command in this process."""
    return lckv_in_this_process(capsysbinary)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*arguments: str, **variables: str) -> Server:
        process = subprocess.Popen(
            [*LCKV, "serve", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**variables),
        )
        servers.append(Server(process))
        return servers[-1]

    yield start
    for server in servers:
        with server.process as process:
            process.kill()
