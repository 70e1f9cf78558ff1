"""The time that expiry goes by."""

from __future__ import annotations

import time

__all__ = ["now_ms", "now_us"]

_now_ns = time.time_ns  # for tests, which have a time of their own


def now_ms() -> int:
    """Return the time of this machine's clock, in milliseconds of Unix time."""
    return _now_ns() // 1_000_000


def now_us() -> int:
    """Return the same in microseconds."""
    return _now_ns() // 1_000
