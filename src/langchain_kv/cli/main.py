"""The entry of ``lckv``: what becomes of errors, signals and streams that cannot be written."""

from __future__ import annotations

import sys

from langchain_kv.cli.notes import REFUSED, USAGE, fail, flush_or_give_up, give_up, show_warning, tell

# Next to nothing is imported here: what Ctrl-C interrupts before ``main`` runs is a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

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
        flush_or_give_up(sys.stdout)
        return INTERRUPTED


def run(arguments: Sequence[str]) -> int:
    """Run one command; print its error, if any, on stderr.

    Args:
        arguments: what follows ``lckv`` on the command line; nothing asks for help.

    Returns:
        0; 1 something is missing, different or damaged; 2 wrong usage; 3 refused, by the service, the file or stdout; 4
        the service cannot be reached; 5 partly done; 130 interrupted; 141 the reader of stdout went away.
    """
    words = list(arguments)
    as_json = "--json" in (words[: words.index("--")] if "--" in words else words)
    from langchain_kv.cli.dispatch import dispatch
    from langchain_kv.errors import StoreError

    try:
        code = dispatch(words)
        if sys.stdout is not None:
            sys.stdout.flush()
    except StoreError as error:
        flush_or_give_up(sys.stdout)
        return tell(error, as_json=as_json)
    except BrokenPipeError:
        give_up(sys.stdout)
        return CLOSED_PIPE
    except SystemExit as leave:  # a signal told a command to stop, and it has cleaned up
        flush_or_give_up(sys.stdout)
        return int(leave.code or 0)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("langchain_kv"):
            raise
        flush_or_give_up(sys.stdout)
        return fail(f"{error.name} is not installed, and the command needs it.", USAGE, "EXTRA", as_json=as_json)
    except OSError as error:
        give_up(sys.stdout)
        return fail(f"cannot write to stdout: {error.strerror or error}", REFUSED, "STDOUT", as_json=as_json)
    return code
