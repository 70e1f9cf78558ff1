"""When values expire: seconds as callers give them, and the moments that are stored."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from langchain_kv.errors import StoreError, UsageError
from langchain_kv.limits import LAST_MOMENT_MS
from langchain_kv.runtime.clock import now_ms
from langchain_kv.values.keys import type_name

__all__ = ["checked_ttl", "moment_after", "refresh_due", "refreshing"]

_logger = logging.getLogger("langchain_kv")

_REFRESH_SLACK: Final = 0.01
"""Of ttl_s: so much later a key is to expire before a read writes that down."""


def checked_ttl(ttl_s: float | None) -> float | None:
    """Return ``ttl_s`` if it is None, or a number over 0.

    Raises:
        UsageError: it is neither.
    """
    if ttl_s is None:
        return None
    advice = "give seconds over 0, math.inf for ever, or None for the store's own"
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float):
        raise UsageError(f"ttl_s must be a number, got {type_name(ttl_s)}: {advice}.")
    if not ttl_s > 0:  # NaN is not, either
        raise UsageError(f"ttl_s must be over 0, got {ttl_s!r:.40}: {advice}.")
    return ttl_s


def moment_after(ttl_s: float | None) -> int | None:
    """Return the moment ``ttl_s`` seconds from now, in milliseconds of Unix time; None for ever."""
    if ttl_s is None or ttl_s > LAST_MOMENT_MS / 1_000:
        return None
    moment = now_ms() + math.ceil(ttl_s * 1_000)
    return moment if moment <= LAST_MOMENT_MS else None


def refresh_due(expires_at_ms: int | None, moment: int, ttl_s: float) -> bool:
    """Return whether a key that expires is to expire at ``moment`` from now on, and that is worth a write."""
    return expires_at_ms is not None and moment - expires_at_ms > ttl_s * 1_000 * _REFRESH_SLACK


@contextmanager
def refreshing() -> Iterator[None]:
    """Have a failure of what is written here, that values which were read live longer, not take them from their reader.

    A full disk, a service that is away or another program's lock: they expire at their moment, as if they had not been
    read.
    """
    try:
        yield
    except StoreError as error:  # of which the words may name keys
        _logger.debug("What was read does not live longer: writing that failed (%s)", type(error).__name__)
