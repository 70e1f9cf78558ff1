"""Warnings that point at the line of the user's program they are about, however deep they come from, in any thread."""

from __future__ import annotations

import inspect
import warnings
from contextvars import ContextVar
from typing import Any, NamedTuple

__all__ = ["remember_caller", "warn_caller"]


class _Line(NamedTuple):
    filename: str
    lineno: int
    module: str
    registry: dict[Any, Any]


_remembered: ContextVar[_Line | None] = ContextVar("langchain_kv_caller", default=None)


def remember_caller() -> None:
    """Keep in this context who called the package now, for a warning of a thread that runs in a copy of it."""
    _remembered.set(_calling_line())


def warn_caller(text: str) -> None:
    """Warn (UserWarning) of what the line does that called the package."""
    line = _remembered.get() or _calling_line()
    if line is None:
        warnings.warn(text, UserWarning, stacklevel=2)
    else:
        warnings.warn_explicit(text, UserWarning, line.filename, line.lineno, line.module, line.registry)


def _calling_line() -> _Line | None:
    frame = inspect.currentframe()
    package = __name__.partition(".")[0]
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name.partition(".")[0] != package:
            registry = frame.f_globals.setdefault("__warningregistry__", {})
            return _Line(frame.f_code.co_filename, frame.f_lineno, name, registry)
        frame = frame.f_back
    return None
