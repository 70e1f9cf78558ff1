"""When a value that a command stores expires."""

from __future__ import annotations

import math
import re
from typing import Final

from langchain_kv.limits import LAST_MOMENT_MS
from langchain_kv.runtime.clock import now_ms

__all__ = ["moment_after", "ttl"]

_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def ttl(text: str) -> float:
    """Return the seconds of ``90``, ``1.5h``, ``7d``.

    Raises:
        ValueError: it is none of these.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text, re.ASCII)
    value = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not value:
        raise ValueError("a time above 0: seconds, or 30s, 15m, 12h, 7d")
    return value


def moment_after(ttl_s: float | None) -> int | None:
    """Return the moment so many seconds from now, in milliseconds of Unix time; None for ever."""
    if ttl_s is None:
        return None
    moment = now_ms() + ttl_s * 1_000
    return math.ceil(moment) if moment <= LAST_MOMENT_MS else None
