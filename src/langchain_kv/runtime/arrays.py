"""numpy, where it is installed."""

from __future__ import annotations

from functools import cache
from typing import Any

from langchain_kv.runtime.forks import importing

__all__ = ["imported_numpy"]


@cache
def imported_numpy() -> Any:
    """Return the module numpy, None where it is not installed."""
    with importing.lock:
        try:
            import numpy
        except ImportError:
            return None
        return numpy
