"""The entry of ``lckv``: what becomes of errors, signals and streams that cannot be written."""

from __future__ import annotations

import os
import sys

# Next to nothing is imported here: what Ctrl-C interrupts before ``main`` runs is a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TextIO

    from langchain_kv.errors import StoreError

__all__ = ["main", "note", "run", "show_warning", "tell"]

MISSING, USAGE, REFUSED, UNREACHABLE, UNWRITTEN = 1, 2, 3, 4, 5
# What a shell reports for a program that SIGINT or SIGPIPE ended.
INTERRUPTED, CLOSED_PIPE = 130, 141


def main() -> int:
    """Run ``lckv`` with the arguments of the command line; return its exit code."""
    try:
        import warnings

        warnings.showwarning = show_warning
        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return INTERRUPTED


def run(arguments: Sequence[str]) -> int:
    """Run one command; print its error, if any, as one line on stderr.

    Args:
        arguments: what follows ``lckv`` on the command line; nothing asks for help.

    Returns:
        0; 1 a key is missing; 2 wrong usage; 3 refused by the service or the file; 4 the service cannot be reached; 5
        stdout cannot be written; 130 interrupted; 141 the reader of stdout went away.
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
        code = app(list(arguments) or ["--help"], prog_name="lckv", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except usage_error as error:
        command = error.ctx.command_path if error.ctx is not None else "lckv"
        return _fail(f"{error.format_message()} See {command} --help.", USAGE)
    except StoreError as error:
        return tell(error)
    except typer.Abort:
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # typer itself ends so when the pipe breaks within a command
        _give_up(sys.stdout)
        return CLOSED_PIPE
    except OSError as error:
        _give_up(sys.stdout)
        return _fail(f"cannot write to stdout: {error.strerror or error}", UNWRITTEN)
    return code or 0


def tell(error: StoreError) -> int:
    """Print an error as one line on stderr; return the exit code that stands for it."""
    from langchain_kv.cli.wording import worded

    return _fail(worded(str(error)), _code_of(error))


def note(text: str) -> None:
    """Print a line that is no data, on stderr; where there is none it is lost, and the exit code says enough."""
    if sys.stderr is None:  # print would take stdout
        return
    try:
        print("lckv:", " ".join(text.split()), file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
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


def _fail(message: str, code: int) -> int:
    note(message)
    return code


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line on stderr, in the place of ``warnings.showwarning``."""
    note(f"warning: {message}")
