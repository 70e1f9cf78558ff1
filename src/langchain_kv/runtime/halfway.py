"""What an error says of an operation of several steps, of which the first ones were carried out."""

from __future__ import annotations

from typing import Self

from langchain_kv.errors import StoreError

__all__ = ["Halfway"]


class Halfway:
    """A context manager: a StoreError that leaves it does not say that all is as before, once something was changed.

    Attributes:
        has_changed: set by its user.
    """

    def __init__(self) -> None:
        self.has_changed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self.has_changed and isinstance(error, StoreError) and error.applied is False:
            error.applied = None
