"""One worker of ``lckv serve --workers``: a process that ``workers.py`` starts, and that nobody starts by hand.

Its stdin is its parent's hold on it: one line says what to serve, and its end, also the parent's own, ends the worker.
Its stdout says, by one line, that it answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import warnings

from langchain_kv.cli.main import show_warning, tell
from langchain_kv.cli.serving import opened
from langchain_kv.errors import StoreError
from langchain_kv.secret import Secret
from langchain_kv.targets import parse_target

__all__ = ["main"]

_STDIN = 0


def main() -> int:
    """Serve as the line on stdin says, until stdin ends or a signal comes; return the exit code."""
    from langchain_kv.server.running import serve_listener

    warnings.showwarning = show_warning
    # Unbuffered, and by its descriptor: a thread that waits in sys.stdin would hold its lock at the interpreter's end.
    with open(_STDIN, "rb", buffering=0, closefd=False) as stdin:
        line = stdin.readline()
    if not line:  # the parent was killed meanwhile
        return 0
    settings = json.loads(line)
    token = Secret(settings.pop("token"))
    del line
    threading.Thread(target=_end_with_stdin, name="langchain-kv parent watch", daemon=True).start()
    try:
        with opened(parse_target(settings["db"])) as engine, socket.socket(fileno=settings["listener"]) as listener:
            serve_listener(engine, token, listener, _say_ready)
    except StoreError as error:
        return tell(error)
    return 0


def _end_with_stdin() -> None:
    """Send this process SIGTERM when stdin ends: the server stops gently; one that does not serve yet ends at once."""
    os.read(_STDIN, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _say_ready() -> None:
    with contextlib.suppress(BrokenPipeError):  # a parent that was killed: stdin ends, too
        print("ready", flush=True)


if __name__ == "__main__":
    sys.exit(main())
