"""Where a command prints: data on stdout, words on stderr; a table for a person, a JSON text a line for a program."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TextIO

from langchain_kv.cli.notes import note, note_json
from langchain_kv.errors import UsageError

__all__ = ["Output", "json_line", "json_text"]

_STAND_IN: Final = os.urandom(16).hex()


class Output:
    """The streams of one command.

    Attributes:
        as_json: whether ``--json`` was given.
        quiet: whether ``--quiet`` was.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet

    @property
    def is_for_people(self) -> bool:
        """Whether stdout is a terminal, and nobody asked for JSON."""
        return not self.as_json and is_terminal(sys.stdout)

    # -- data ---------------------------------------------------------------------------------------------------------

    def write(self, data: bytes | str) -> None:
        """Write to stdout, whatever the terminal's encoding.

        Raises:
            OSError: it cannot be written.
        """
        if sys.stdout is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sys.stdout.buffer.write(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)

    def line(self, line: bytes) -> None:
        """Write a JSON text and a line end. On a terminal, what others stored can do nothing but stand there."""
        self.write(_escaped(line) if is_terminal(sys.stdout) else line)

    def record(self, value: Any) -> None:
        """Write a value as a JSON text and a line end."""
        self.line(json_line(value))

    def rows(self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Write rows as they come: a table for people, else each as a JSON object a line.

        Args:
            rows: the fields of each, by name.
            columns: the names that a table shows, in order; the last may be long. A row that lacks one has a blank.
        """
        if not self.is_for_people:
            for row in rows:
                self.record(row)
            return
        from langchain_kv.cli.table import lines_of

        for line in lines_of(rows, columns):
            self.write(line + "\n")
            sys.stdout.flush()

    def facts(self, fields: Mapping[str, Any]) -> None:
        """Write the fields of one thing: a line each for people, else one JSON object."""
        if not self.is_for_people:
            self.record(fields)
            return
        from langchain_kv.cli.table import fact_lines

        self.write("".join(f"{line}\n" for line in fact_lines(fields)))

    # -- words --------------------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Print a line that is no data on stderr."""
        note_json({"note": " ".join(text.split())}) if self.as_json else note(text)

    def counts(self, **numbers: int) -> None:
        """Print at the end how many of what were read, written, ...: on stderr; as JSON with ``--json``."""
        if self.quiet:
            return
        if self.as_json:
            note_json({"counts": numbers})
        else:
            note(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in numbers.items()))

    def progress(self, unit: str = "keys", total: int | None = None) -> Any:
        """Return a ``progress.Progress``, which shows how far long work is, on a terminal only.

        Args:
            unit: what is counted.
            total: how many there are; None: not known.
        """
        from langchain_kv.cli.progress import Progress

        is_shown = not self.quiet and not self.as_json and is_terminal(sys.stderr)
        return Progress(unit, total, sys.stderr if is_shown else None)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; one that is closed is none."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _escaped(line: bytes) -> bytes:
    """Return a JSON text in which all that would move a terminal's cursor, or be invisible, is escaped as JSON does."""
    import json

    text = line.decode().removesuffix("\n")
    if not text.isprintable():
        text = "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)
    return f"{text}\n".encode()


def json_line(value: Any) -> bytes:
    """Return the JSON text of a value and a line end.

    Raises:
        UsageError: another program stored a number beyond a float's range, which reads as an infinity.
    """
    try:
        text = json_text(value, allow_nan=False)
    except ValueError:
        raise UsageError("The value holds a number beyond a float's range, which cannot be printed as JSON.") from None
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can express
        return json_text(value, ensure_ascii=True).encode() + b"\n"


def json_text(value: Any, *, ensure_ascii: bool = False, **options: Any) -> str:
    """Return what ``json.dumps`` does, and Decimals with every digit.

    For these a text stands in, because there is no other way to have them written. Nobody can foresee it.
    """
    import json

    numbers: list[str] = []

    def stand_in(number: Any) -> str:
        from decimal import Decimal  # here: few values have one

        if not isinstance(number, Decimal):
            raise TypeError(f"{type(number).__name__} is no type of JSON")
        numbers.append(str(number))
        return f"{_STAND_IN} {len(numbers) - 1}"

    text = json.dumps(value, ensure_ascii=ensure_ascii, default=stand_in, **options)
    if numbers:
        import re

        text = re.sub(f'"{_STAND_IN} ([0-9]+)"', lambda found: numbers[int(found[1])], text)
    return text
