"""One worker of ``lckv serve --workers``: a process that ``workers.py`` starts, and that nobody starts by hand.

Its stdin is a socket, its parent's hold on it: one line says what to serve, then come the clients' connections, and its
end, also the parent's own, ends the worker.
Its stdout says, by one line, that it answers.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import warnings

from langchain_kv.cli.main import show_warning, tell
from langchain_kv.cli.serving import opened
from langchain_kv.errors import StoreError
from langchain_kv.places.targets import parse_target
from langchain_kv.values.secret import Secret

__all__ = ["main"]

_STDIN = 0


def main() -> int:
    """Serve as the line on stdin says, until stdin ends or a signal comes; return the exit code."""
    warnings.showwarning = show_warning
    with socket.socket(fileno=_STDIN) as channel:
        return _serve(channel)


def _serve(channel: socket.socket) -> int:
    from langchain_kv.server.http.running import serve_dealt

    with open(channel.fileno(), "rb", buffering=0, closefd=False) as stdin:
        line = stdin.readline()  # and no byte more: connections come after it
    if not line:  # the parent was killed meanwhile
        return 0
    settings = json.loads(line)
    token = Secret(settings.pop("token"))
    del line
    try:
        with opened(parse_target(settings["db"])) as engine:
            serve_dealt(engine, token, channel, _say_ready)
    except StoreError as error:
        return tell(error)
    return 0


def _say_ready() -> None:
    with contextlib.suppress(BrokenPipeError):  # a parent that was killed: stdin ends, too
        print("ready", flush=True)


if __name__ == "__main__":
    sys.exit(main())
