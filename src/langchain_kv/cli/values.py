"""Values and secrets on the command line: how they are given, and how they are printed."""

from __future__ import annotations

import codecs
import errno
import json
import os
import sys
from enum import Enum
from pathlib import Path
from typing import Any

from langchain_kv.errors import ConfigError, InvalidValueError, UsageError
from langchain_kv.values.keys import shown
from langchain_kv.values.secret import Secret

__all__ = ["Form", "emit", "json_line", "printed", "read_secret", "read_value"]


class Form(Enum):
    """How a value is written on the command line.

    Attributes:
        JSON: as JSON text.
        TEXT: a text value, as it is.
        BYTES: bytes, as they are; kept as a byte store keeps them.
    """

    JSON = "json"
    TEXT = "text"
    BYTES = "bytes"

    @classmethod
    def of(cls, *, text: bool, as_bytes: bool) -> Form:
        """Return the form that the options ``--text`` and ``--bytes`` name together."""
        if text and as_bytes:
            raise ConfigError("--text and --bytes exclude each other: give one.")
        return cls.TEXT if text else cls.BYTES if as_bytes else cls.JSON


def read_value(form: Form, given: str) -> Any:
    """Return the value of an argument.

    Args:
        form: how it is written.
        given: the value itself, ``-`` for what stands on stdin, ``@FILE`` for what stands in a file.

    Raises:
        UsageError: the file cannot be read, or holds no text, or no JSON.
    """
    if given == "-":
        data = _read_stdin()
    elif given.startswith("@"):
        data = _read_file(given[1:])
    else:
        data = os.fsencode(given)
    if form is Form.BYTES:
        return data
    try:
        return data.decode() if form is Form.TEXT else json.loads(_decoded(data))
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


def _decoded(data: bytes) -> str:
    """Return the text of JSON, of which Windows' programs make UTF-8 or UTF-16 with a byte order mark."""
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if is_wide else "utf-8-sig")


def read_secret(option: str, given: str, *, is_ascii: bool = True) -> str:
    """Return the token or password that an option's ``@FILE`` holds, without the white space around it.

    Raises:
        UsageError: it is not of the form ``@FILE``, or the file cannot be read or holds none.
    """
    name = option.lstrip("-")
    if not given.startswith("@"):
        raise ConfigError(
            f"{option} takes @FILE, never the {name} itself, which everyone on this machine could see: write the {name}"
            " to a file, or set its environment variable."
        )
    try:
        secret = Secret(_decoded(_read_file(given[1:])).strip())
    except UnicodeDecodeError:
        secret = Secret()
    if not secret.isprintable() or not secret or (is_ascii and not secret.isascii()):
        kind = "ASCII text" if is_ascii else "text"
        raise ConfigError(f"{option}: the file {given[1:]!r} does not hold a {name}: one line of printable {kind}.")
    return secret


def printed(form: Form, key: str, value: Any) -> bytes:
    """Return what is printed for the one value of ``key``: JSON with a line end, text and bytes as they are.

    Raises:
        UsageError: the form is text and the value is none.
    """
    if form is Form.JSON:
        return json_line(value)
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise UsageError(f"The value of key {shown(key)} is not text but JSON: leave out --text.")
    return value.encode("utf-8", "surrogatepass")


def json_line(value: Any) -> bytes:
    """Return the JSON text of a value and a line end.

    Raises:
        UsageError: another program stored a number beyond a float's range, which reads as an infinity.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise UsageError("The value holds a number beyond a float's range, which cannot be printed as JSON.") from None
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can express
        return json.dumps(value).encode() + b"\n"


def emit(data: bytes) -> None:
    """Write to stdout, whatever the terminal's encoding."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    sys.stdout.buffer.write(data)


def _read_file(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"Cannot read the file {name!r}: {reason}.") from None
