"""``lckv serve`` on a cluster, as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

LCKV = [sys.executable, "-m", "langchain_kv.cli"]
TOKEN = "a-token-of-the-tests"


class Served(NamedTuple):
    """A running server."""

    url: str
    token: str
    process: subprocess.Popen[str]


@contextmanager
def served(url: str) -> Iterator[Served]:
    """Give a server on any free port, which ends with SIGTERM, without an error and with nothing on stderr."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    process = subprocess.Popen(
        [*LCKV, "serve", "--port", "0", "--db", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, "LCKV_TOKEN": TOKEN},
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), (line, process.communicate(timeout=60))
            yield Served(line.split()[-1], TOKEN, process)
            process.send_signal(signal.SIGTERM)
            _, error = process.communicate(timeout=60)
            assert (process.returncode, error) == (0, "")
        finally:
            process.kill()
