"""``lckv serve`` as a process, for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request

LCKV = [sys.executable, "-m", "langchain_kv.cli"]
TOKEN = "a-token-of-the-tests"
STRICT = {"PYTHONWARNINGS": "error"}
"""Nothing may be left open at the end: a warning would be a line on stderr.

Not Python's development mode: asyncio would print a line for each step that takes over 0.1 s, as any may where others
work, too.
"""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONWARNINGS", "LCKV_TOKEN")}
    return {**kept, **more}


class Server:
    """A running ``lckv serve``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.line = process.stdout.readline()

    @property
    def url(self) -> str:
        return self.line.split()[-1]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send the signal; return the exit code and what else was printed."""
        self.process.send_signal(number)
        out, error = self.process.communicate(timeout=30)
        return self.process.returncode, out, error


def ask(url: str, token: str | None, command: object, path: str = "/v1") -> dict[str, object]:
    headers = {"Content-Type": "application/json", **({"Token": token} if token else {})}
    request = urllib.request.Request(url + path, json.dumps(command).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as reply:
        answer: dict[str, object] = json.load(reply)
        return answer
