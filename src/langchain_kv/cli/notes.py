"""What ``lckv`` says beside its data: lines on stderr, one a message, and the exit code that stands for an error."""

from __future__ import annotations

import os
import sys

# Next to nothing is imported here: what Ctrl-C interrupts before ``main`` runs is a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from langchain_kv.errors import StoreError

__all__ = ["MISSING", "REFUSED", "UNREACHABLE", "UNWRITTEN", "USAGE", "fail", "give_up", "note", "show_warning", "tell"]

MISSING, USAGE, REFUSED, UNREACHABLE, UNWRITTEN = 1, 2, 3, 4, 5


def tell(error: StoreError) -> int:
    """Print an error as one line on stderr; return the exit code that stands for it."""
    from langchain_kv.cli.wording import worded

    return fail(worded(str(error)), _code_of(error))


def note(text: str) -> None:
    """Print a line that is no data, on stderr; where there is none it is lost, and the exit code says enough."""
    if sys.stderr is None:  # print would take stdout
        return
    try:
        print("lckv:", " ".join(text.split()), file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr)


def give_up(stream: TextIO) -> None:
    """Let what is still in a stream's buffer vanish: it would fail once more when the interpreter ends."""
    from contextlib import suppress

    with suppress(OSError, ValueError, AttributeError):  # it has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _code_of(error: StoreError) -> int:
    from langchain_kv.errors import PartialWriteError, TransportError, UsageError

    causes = list(error.errors.values()) if isinstance(error, PartialWriteError) else [error]
    if causes and all(isinstance(cause, TransportError) for cause in causes):
        return UNREACHABLE
    return USAGE if isinstance(error, UsageError) else REFUSED


def fail(message: str, code: int) -> int:
    """Print a message as one line on stderr; return the exit code."""
    note(message)
    return code


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line on stderr, in the place of ``warnings.showwarning``."""
    note(f"warning: {message}")
