"""The entry of ``lckv``: what becomes of errors, signals and a closed pipe."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_kv.errors import StoreError

__all__ = ["main", "note", "run", "show_warning", "tell"]

MISSING, USAGE, REFUSED, UNREACHABLE = 1, 2, 3, 4
# What a shell reports for a program that SIGINT or SIGPIPE ended.
INTERRUPTED, CLOSED_PIPE = 130, 141


def main() -> int:
    """Run ``lckv`` with the arguments of the command line; return its exit code."""
    warnings.showwarning = show_warning
    try:
        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return INTERRUPTED


def run(arguments: Sequence[str]) -> int:
    """Run one command; print its error, if any, as one line on stderr.

    Args:
        arguments: what follows ``lckv`` on the command line.

    Returns:
        0; 1 a key is missing; 2 wrong usage; 3 refused by the service or the file; 4 the service cannot be reached;
        130 interrupted; 141 the reader of stdout went away.
    """
    try:
        import typer
    except ModuleNotFoundError:
        return _fail("the command needs an extra: pip install 'langchain-kv[cli]'", USAGE)

    from langchain_kv.cli.app import app
    from langchain_kv.errors import StoreError

    # The base of BadParameter is "wrong usage" in every typer, whether it uses click or carries its own copy.
    usage_error: Any = typer.BadParameter.__bases__[0]
    try:
        code = app(list(arguments), prog_name="lckv", standalone_mode=False)
        sys.stdout.flush()
    except usage_error as error:
        return _fail(f"{error.format_message()} See lckv --help.", USAGE)
    except StoreError as error:
        return tell(error)
    except typer.Abort:
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # typer itself ends so when the pipe breaks within a command
        # What is still in the buffer would fail once more when the interpreter closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except OSError as error:
        return _fail(f"cannot read or write: {error.strerror or error}", USAGE)
    return code or 0


def tell(error: StoreError) -> int:
    """Print an error as one line on stderr; return the exit code that stands for it."""
    return _fail(str(error), _code_of(error))


def note(text: str) -> None:
    """Print a line that is no data, on stderr."""
    print("lckv:", text, file=sys.stderr, flush=True)


def _code_of(error: StoreError) -> int:
    from langchain_kv.errors import PartialWriteError, TransportError, UsageError

    causes = list(error.errors.values()) if isinstance(error, PartialWriteError) else [error]
    if causes and all(isinstance(cause, TransportError) for cause in causes):
        return UNREACHABLE
    return USAGE if isinstance(error, UsageError) else REFUSED


def _fail(message: str, code: int) -> int:
    print("lckv:", " ".join(message.split()), file=sys.stderr)
    return code


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line on stderr, in the place of ``warnings.showwarning``."""
    print("lckv: warning:", " ".join(str(message).split()), file=sys.stderr)
