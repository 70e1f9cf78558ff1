"""What an error's message says of its cause, and what of it may be told: the database's words stand among others."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["cut", "is_deterministic", "names_no_table", "told"]

DETERMINISTIC: Final = frozenset(
    {
        "AlreadyExistsException",
        "BufferOverflowException",
        "CharacterCodingException",
        "ClassCastException",
        "CodecNotFoundException",
        "EngineError",  # lckv serve
        "FrameTooLongException",
        "FunctionFailureException",
        "IllegalArgumentException",
        "IndexOutOfBoundsException",
        "InvalidConfigurationInQueryException",
        "InvalidKeyspaceException",
        "InvalidQueryException",
        "MalformedInputException",
        "NullPointerException",
        "ProtocolError",
        "SyntaxError",
        "UnauthorizedException",
        "UnmappableCharacterException",
        "UnsupportedOperationException",
        "UnsupportedProtocolVersionException",
    }
)
"""What the line ``Error Class:`` names where the same request would meet the error again. Whatever else it names
(ClosedConnectionException, ConnectionInitException, ...) is of a database that restarts or cannot keep up."""

SAFE_SCOPES: Final = frozenset({"SCHEMA", "SECURITY", "DATABASE"})
SAFE_CODES: Final = frozenset({"SHRED_DOC_LIMIT_VIOLATION", "SHRED_BAD_FIELD_NAME", "COMMAND_UNKNOWN"})
"""Of what the service's text does not quote what was sent, but for the values of a statement."""

LENGTH_MAX: Final = 500
CAUSE_MAX: Final = 300

_CAUSE: Final = re.compile(r"^[ \t]*(?:The database error|Error Class|Error Message):.*", re.MULTILINE)
_CLASS: Final = re.compile(r"\bError Class:[ \t]*(?:[\w$]+\.)*([\w$]+)")
_STATEMENT: Final = "The command generated the CQL"
_ADVICE: Final = ("It is safe to retry", "Retrying the command", "Review the", "Fix the issue")
_NO_TABLE: Final = re.compile(r"unconfigured table|\btable\b.{0,200}?\b(?:does not|doesn't) exist", re.IGNORECASE)


def told(message: str, code: str, scope: str) -> str:
    """Return what an error of ours tells of a message of the service's: its cause however long the rest is, no value.

    Args:
        message: the service's text.
        code: the error's.
        scope: the error's.
    """
    if scope not in SAFE_SCOPES and code not in SAFE_CODES:
        found = _CLASS.search(message)  # the class only: the words themselves may be about what was sent
        return f"Error Class: {found[1]}" if found and _CAUSE.search(message) else ""
    cause = cut(" ".join(_causes(message)), CAUSE_MAX)
    start = message.partition(_STATEMENT)[0]
    if cause:
        start = _CAUSE.sub("", start)
    return f"{cut(' '.join(start.split()), LENGTH_MAX - len(cause))} {cause}".strip()


def cut(text: str, length: int) -> str:
    """Return the beginning of a text, to the end of a word: a token in it, which is hidden later, is whole or gone."""
    return text if len(text) <= length else text[: length + 1].rpartition(" ")[0]


def is_deterministic(message: str) -> bool:
    """Tell whether the same request would meet the error again, by the class of the driver's exception."""
    found = _CLASS.search(message)
    return found is not None and found[1] in DETERMINISTIC


def names_no_table(message: str) -> bool:
    """Tell whether the database says that there is no such table."""
    return bool(_NO_TABLE.search(" ".join(_causes(message))))


def _causes(message: str) -> list[str]:
    """Return the lines in which a message tells what the database said: none that is part of a statement's value."""
    if _STATEMENT not in message:
        return [" ".join(line.split()) for line in _CAUSE.findall(message)]
    # Behind the values, which may hold anything, only the last line but the advice is the service's for certain.
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(_ADVICE)]
    return said[-1:] if said and _CAUSE.match(said[-1]) else []
