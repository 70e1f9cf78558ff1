"""What a caller is told of stored values that cannot be read."""

from __future__ import annotations

from typing import Any

from langchain_kv.errors import DamagedValueError
from langchain_kv.values.keys import shown

__all__ = ["raise_damaged"]


def raise_damaged(damaged: dict[str, str], values: dict[str, Any]) -> None:
    """Raise the one error of all values that are damaged (why, by key); ``values`` are those that were read."""
    if damaged:
        some = "; ".join(f"{shown(key)}: {reason}" for key, reason in list(damaged.items())[:5])
        more = f"; and {len(damaged) - 5:,} more" if len(damaged) > 5 else ""
        raise DamagedValueError(
            f"{len(damaged):,} stored value(s) cannot be read: {some}{more}. Write them again, or delete them; .values"
            " holds the values that were read.",
            errors=damaged,
            values=values,
        )
