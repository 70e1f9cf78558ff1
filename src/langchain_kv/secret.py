"""Tokens that nothing shows by accident: not a repr, not the variables of a traceback, not a pickle."""

from __future__ import annotations

from typing import Any, NoReturn, Self

__all__ = ["Secret", "SecretSource", "hidden"]


class Secret(str):
    """A text whose repr is a mask. It is a ``str`` all the same: whoever formats or sends it gets the text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("A token is not pickled: pickle the store, which takes its token from the environment again.")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class SecretSource:
    """Whatever else a user gave as a token, such as an object with ``get_token()``; its own repr is never asked for."""

    __slots__ = ("_given",)

    def __init__(self, given: Any) -> None:
        self._given = given

    @property
    def kind(self) -> str:
        """The name of its type."""
        return type(self._given).__name__

    @property
    def has_tokens(self) -> bool:
        """Whether it has the method ``get_token``."""
        return callable(getattr(self._given, "get_token", None))

    def discard(self) -> bool:
        """Close a coroutine that nobody will await; tell whether this is something to be awaited."""
        if hasattr(self._given, "close"):
            self._given.close()
        return hasattr(self._given, "__await__")

    def __call__(self) -> Any:
        """Return what ``get_token()`` returns, as ``hidden``."""
        return hidden(self._given.get_token())

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("A token is not pickled: pickle the store, which takes its token from the environment again.")


def hidden(token: Any) -> Any:
    """Return what stands for a token without showing it: a Secret for a text, None for None, a SecretSource else.

    A function that is given a token rebinds its parameter to this before anything can fail.
    """
    if token is None or isinstance(token, SecretSource):
        return token
    return Secret(token) if isinstance(token, str) else SecretSource(token)
