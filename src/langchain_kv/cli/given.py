"""What is given as a value: a word of the command line, what stands on stdin, or in a file."""

from __future__ import annotations

import codecs
import json
import os
import sys
from enum import Enum
from typing import Any

from langchain_kv.errors import ConfigError, InvalidValueError, UsageError

__all__ = ["Form", "decoded", "read_file", "read_value"]


class Form(Enum):
    """How a value is written on the command line that is no JSON.

    Attributes:
        TEXT: a text value, as it is.
        BYTES: bytes, as they are; kept as a byte store keeps them.
    """

    TEXT = "text"
    BYTES = "bytes"

    @classmethod
    def of(cls, *, text: bool, as_bytes: bool) -> Form | None:
        """Return the form that the options ``--text`` and ``--bytes`` name together; None for JSON."""
        if text and as_bytes:
            raise ConfigError("--text and --bytes exclude each other: give one.")
        return cls.TEXT if text else cls.BYTES if as_bytes else None


def read_value(form: Form | None, given: str) -> Any:
    """Return the value of an argument.

    Args:
        form: how it is written; None: as JSON.
        given: the value itself, ``-`` for what stands on stdin, ``@FILE`` for what stands in a file.

    Raises:
        UsageError: the file cannot be read, or holds no text, or no JSON.
    """
    if given == "-":
        data = _read_stdin()
    elif given.startswith("@"):
        data = read_file(given[1:])
    else:
        data = os.fsencode(given)
    if form is Form.BYTES:
        return data
    try:
        return data.decode() if form is Form.TEXT else json.loads(decoded(data))
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"The value is not UTF-8 text (byte {error.start}): use --bytes.") from None
    except (ValueError, RecursionError) as error:
        where = f"{error.msg}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "out of bounds"
        raise InvalidValueError(
            f"The value is not JSON ({where}): quote it as JSON ('\"text\"', '[1, 2]'), or use --text or --bytes."
        ) from None


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise UsageError("There is no stdin to read the value from: give it as JSON, or as @FILE.")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise UsageError(f"Cannot read stdin: {error.strerror or error}.") from None


def decoded(data: bytes) -> str:
    """Return the text of JSON, of which Windows' programs make UTF-8 or UTF-16 with a byte order mark."""
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if is_wide else "utf-8-sig")


def read_file(name: str) -> bytes:
    """Return what is in a file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with open(name, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"Cannot read the file {name!r}: {reason}.") from None
