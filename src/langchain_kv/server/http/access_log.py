"""A line for each request that an application answers: what came, what became of it, how long that took. No values."""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic
from typing import Final
from urllib.parse import quote

from langchain_kv.server.commands.table import COMMANDS
from langchain_kv.server.http.connections import Answer, Application, HttpRequest

__all__ = ["AccessLog"]

PATH_MAX: Final = 200
"""Characters of a path that are shown."""

_DATA_API: Final = re.compile(r"(/api/json)?/v1(/|$)|/stargate/health(/|$)")
_KNOWN: Final = frozenset(name for known in COMMANDS for name in known)
_FIRST_NAME: Final = re.compile(rb'\s*\{\s*"([A-Za-z]{1,60})"')


class AccessLog:
    """An application around another one, which tells of each request in one line.

    A line has the method, the path, the command, the status, milliseconds, and the bytes of the body that came and of
    the answer's: ``POST /v1/default_keyspace/kv find 200 1.3 ms 57 B in 112 B out``. Of a body only the command's name
    is shown, if it is one. Of a URL only the path is, cut, with what is no plain character as ``%XX``, so that nobody
    writes lines of his own; of a path that is not the Data API's only the beginning, as it may name keys. What is no
    HTTP, or was cut off, has no line.

    Args:
        application: answers the requests.
        write: is given each line, without its end.
        hidden: texts, such as tokens, that are not shown in whatever place of a path they come.
    """

    def __init__(self, application: Application, write: Callable[[str], None], hidden: tuple[str, ...] = ()) -> None:
        self._application = application
        self._write = write
        self._hidden = hidden

    def refuse(self, request: HttpRequest) -> Answer | None:
        """Answer as the application does; tell of a request that it refuses."""
        answer = self._application.refuse(request)
        if answer is not None:
            self._tell(request, "-", answer, 0.0)
        return answer

    async def answer(self, request: HttpRequest) -> Answer:
        """Answer as the application does, and tell of it; of a request that ends in an error, too."""
        began = monotonic()
        answer = Answer(500)
        try:
            answer = await self._application.answer(request)
        finally:
            self._tell(request, _command(request.body), answer, monotonic() - began)
        return answer

    def _tell(self, request: HttpRequest, command: str, answer: Answer, took_s: float) -> None:
        self._write(
            f"{_plain(request.method)} {self._path(request.path)} {command} {answer.status} {took_s * 1_000:.1f} ms"
            f" {len(request.body)} B in {len(answer.body)} B out"
        )

    def _path(self, path: str) -> str:
        for text in self._hidden:
            path = path.replace(text, "***")
        if not _DATA_API.match(path):
            first, *rest = path.lstrip("/").split("/")
            path = f"/{first}{'/...' if rest else ''}"
        shown = quote(path, safe="/*")
        return shown if len(shown) <= PATH_MAX else f"{shown[:PATH_MAX]}..."


def _plain(text: str) -> str:
    return quote(text[:20], safe="") or "-"


def _command(body: bytes) -> str:
    """Return the name of the command in a body, ``-`` where it is none that there is."""
    found = _FIRST_NAME.match(body[:200])
    name = found[1].decode() if found else ""
    return name if name in _KNOWN else "-"
