"""Commands answered by an engine without HTTP, for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from langchain_kv.engines.base import Engine
from langchain_kv.server.commands.table import answer

Send = Callable[..., Any]
"""Takes a command, an object or its bytes, and the path it is sent to; returns the reply."""


def sender(engine: Engine, default: tuple[str, ...]) -> Send:
    def send(command: Any, path: tuple[str, ...] = default) -> Any:
        body = command if isinstance(command, bytes) else json.dumps(command).encode()
        status, reply = asyncio.run(answer(engine, tuple(path), body))
        assert status == 200
        return json.loads(reply)

    return send


def codes(reply: Any) -> list[str]:
    return [error["errorCode"] for error in reply["errors"]]
