"""What ``lckv`` says beside its data, on stderr: a line a message; and the exit code that stands for an error."""

from __future__ import annotations

import os
import sys

# Next to nothing is imported here: what Ctrl-C interrupts before ``main`` runs is a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from langchain_kv.errors import StoreError

__all__ = [
    "MISSING",
    "PARTLY",
    "REFUSED",
    "UNREACHABLE",
    "USAGE",
    "code_name",
    "exit_code",
    "fail",
    "flush_or_give_up",
    "give_up",
    "note",
    "note_json",
    "show_warning",
    "tell",
]

MISSING, USAGE, REFUSED, UNREACHABLE, PARTLY = 1, 2, 3, 4, 5
"""Exit codes. MISSING also says that two targets differ, or that something is damaged."""

FIXES = {
    "USAGE": "See lckv COMMAND --help.",
    "AUTH": "Give the right token by --token @FILE, or by its variable of the environment.",
    "CONNECT": "See that the service runs and can be reached from here, then repeat the command.",
    "UNKNOWN_COLLECTION": "See lckv collections for those that are there; lckv set creates one.",
    "DAMAGED_VALUE": "Write the value again, or remove it with lckv del; lckv check lists all that are damaged.",
    "PARTIAL_WRITE": "Repeat the command: what was written is written again.",
    "ENGINE_BUSY": "Wait for the program that holds the file, or raise --timeout.",
    "MISSING": "See lckv keys for those that are there.",
    "STDOUT": "Make room, or print elsewhere.",
    "EXTRA": "pip install 'langchain-kv[cli]'",
}
"""What to do about an error, by its code, where the message alone does not say it."""


def tell(error: StoreError, *, as_json: bool = False) -> int:
    """Print an error on stderr; return the exit code that stands for it."""
    from langchain_kv.cli.wording import worded

    return fail(
        worded(str(error)), exit_code(error), code_name(error), as_json=as_json, retryable=bool(error.retryable)
    )


def fail(message: str, code: int, name: str, *, as_json: bool = False, retryable: bool = False) -> int:
    """Print an error on stderr, as a line or as JSON; return the exit code.

    Args:
        message: what went wrong, and what to do.
        code: the exit code.
        name: the error's own code, which stays the same from version to version.
        as_json: whether it is to be JSON.
        retryable: whether the same command may succeed later.
    """
    if as_json:
        fields = {"code": name, "message": " ".join(message.split()), "fix": FIXES.get(name), "retryable": retryable}
        note_json({"error": fields})
    else:
        note(message)
    return code


def note(text: str) -> None:
    """Print a line that is no data, on stderr; where there is none it is lost, and the exit code says enough."""
    _print(f"lckv: {' '.join(text.split())}")


def note_json(fields: dict[str, Any]) -> None:
    """As ``note``, as a JSON text."""
    import json

    _print(json.dumps(fields))


def _print(line: str) -> None:
    if sys.stderr is None:  # print would take stdout
        return
    if not line.isprintable():  # what a service or a file says may be meant for a terminal's ears
        line = "".join(one if one.isprintable() else repr(one)[1:-1] for one in line)
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr)


def give_up(stream: TextIO) -> None:
    """Let what is still in a stream's buffer vanish: it would fail once more when the interpreter ends."""
    from contextlib import suppress

    with suppress(OSError, ValueError, AttributeError):  # it has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def flush_or_give_up(stream: TextIO | None) -> None:
    """Write what is in a stream's buffer, or let it vanish: what was said already is the reason of the end."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        give_up(stream)  # type: ignore[arg-type]


def code_name(error: StoreError) -> str:
    """Return an error's own code: of its class, UNKNOWN_COLLECTION say, or the one of a Data API that has no class."""
    from langchain_kv.errors import ConfigError, DataAPIError, UsageError

    if type(error) in (ConfigError, UsageError):
        return "USAGE"
    if type(error) is DataAPIError and error.code:
        return error.code
    name = type(error).__name__.removesuffix("Error")
    return "".join(
        f"_{letter}" if letter.isupper() and at and not name[at - 1].isupper() else letter
        for at, letter in enumerate(name)
    ).upper()


def exit_code(error: StoreError) -> int:
    """Return the exit code that stands for an error."""
    from langchain_kv.errors import PartialWriteError, TransportError, UsageError

    if isinstance(error, PartialWriteError):
        if error.written:
            return PARTLY
        causes = list(error.errors.values())
    else:
        causes = [error]
    if causes and all(isinstance(cause, TransportError) for cause in causes):
        return UNREACHABLE
    return USAGE if isinstance(error, UsageError) else REFUSED


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one line on stderr, in the place of ``warnings.showwarning``."""
    note(f"warning: {message}")
