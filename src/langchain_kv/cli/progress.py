"""How far long work is: one line on a terminal, written over until the work ends."""

from __future__ import annotations

import time
from typing import Final, Self, TextIO

__all__ = ["Progress"]

_EVERY_S: Final = 0.1
_now_s = time.monotonic  # for tests, which have a time of their own


class Progress:
    """Counts, and shows the count with its rate and, where the total is known, the time left. Used as a context.

    Args:
        unit: what is counted.
        total: how many there are; None: not known.
        stream: the terminal; None shows nothing.
    """

    def __init__(self, unit: str, total: int | None, stream: TextIO | None) -> None:
        self.done = 0
        self._unit = unit
        self._total = total
        self._stream = stream
        self._began_s = self._shown_s = _now_s()
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hide()

    def hide(self) -> None:
        """Take the line away, before something else is printed, until more is counted."""
        self._write("")

    def add(self, count: int = 1) -> None:
        """Count some more."""
        self.done += count
        now = _now_s()
        if self._stream is not None and now - self._shown_s >= _EVERY_S:
            self._shown_s = now
            self._write(self.line(now - self._began_s))

    def line(self, taken_s: float) -> str:
        """Return what is shown after so many seconds."""
        rate = self.done / taken_s if taken_s > 0 else 0.0
        if self._total is None:
            return f"{self.done:,} {self._unit}, {rate:,.0f}/s"
        left = clock((self._total - self.done) / rate) if rate else "--:--"
        return f"{self.done:,} of {self._total:,} {self._unit}, {rate:,.0f}/s, {left} left"

    def _write(self, text: str) -> None:
        if self._stream is None or (not text and not self._width):
            return
        try:
            self._stream.write(f"\r{text:{self._width}}" if text else f"\r{'':{self._width}}\r")
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None  # nobody sees it any more
        self._width = len(text)


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
