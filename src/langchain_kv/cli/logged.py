"""What the package logs while a command runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from langchain_kv.cli.output import Output

__all__ = ["noting_what_is_logged"]


@contextmanager
def noting_what_is_logged(output: Output) -> Iterator[None]:
    """Print the warnings of the package's log as notes, for as long as the block runs."""
    handler = _Notes(output)
    logger = logging.getLogger("langchain_kv")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Notes(logging.Handler):
    """Prints warnings, and what is worse, as notes."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.note(f"warning: {record.getMessage()}")
