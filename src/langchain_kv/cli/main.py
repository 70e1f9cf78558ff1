"""The entry of ``lckv``: what becomes of errors, signals and streams that cannot be written."""

from __future__ import annotations

import sys

from langchain_kv.cli.notes import UNWRITTEN, USAGE, fail, give_up, show_warning, tell

# Next to nothing is imported here: what Ctrl-C interrupts before ``main`` runs is a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["main", "run"]

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
        return fail("the command needs an extra: pip install 'langchain-kv[cli]'", USAGE)

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
        return fail(f"{error.format_message()} See {command} --help.", USAGE)
    except StoreError as error:
        return tell(error)
    except typer.Abort:
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # typer itself ends so when the pipe breaks within a command
        give_up(sys.stdout)
        return CLOSED_PIPE
    except OSError as error:
        give_up(sys.stdout)
        return fail(f"cannot write to stdout: {error.strerror or error}", UNWRITTEN)
    return code or 0
