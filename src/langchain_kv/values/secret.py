"""Tokens that nothing shows by accident: not a repr, not the variables of a traceback, not a pickle."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol, Self

from langchain_kv.errors import ConfigError

__all__ = ["Secret", "SecretSource", "SecretText", "TokenProvider", "checked_token", "exact", "given_token", "masked"]


class TokenProvider(Protocol):
    """What may be given in the place of a token: it is asked anew for each operation, in the caller's thread."""

    def get_token(self) -> str | None:
        """Return the token, None for none."""


class SecretText(Protocol):
    """A text that is shown to nobody who does not ask for it, such as pydantic's ``SecretStr``."""

    def get_secret_value(self) -> str:
        """Return the text."""


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
    """Whatever else a user gave as a token, such as an object with ``get_token()``; its own repr is never asked for.

    A pydantic ``SecretStr`` is one, by its ``get_secret_value()``, and so is a function that returns the token.
    """

    __slots__ = ("_given",)

    def __init__(self, given: Any) -> None:
        self._given = given

    @property
    def kind(self) -> str:
        """The name of its type."""
        return type(self._given).__name__

    @property
    def has_tokens(self) -> bool:
        """Whether there is a function to ask."""
        return callable(self._ask) and not isinstance(self._given, type)

    def discard(self) -> bool:
        """Close a coroutine that nobody will await; tell whether this is something to be awaited."""
        if hasattr(self._given, "close"):
            self._given.close()
        return hasattr(self._given, "__await__")

    @property
    def _ask(self) -> Any:
        for name in ("get_token", "get_secret_value"):
            if callable(method := getattr(self._given, name, None)):
                return method
        return self._given

    def __call__(self) -> Any:
        """Return the token it gives now, as ``given_token``."""
        return given_token(self._ask())

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("A token is not pickled: pickle the store, which takes its token from the environment again.")


def masked(token: Any) -> Any:
    """Return what stands for a token without showing it: a Secret for a text, None for None, a SecretSource else.

    A function that is given a token rebinds its parameter to this before anything can fail.
    """
    if token is None or isinstance(token, SecretSource):
        return token
    return Secret(exact(token)) if isinstance(token, str) else SecretSource(token)


def given_token(token: Any) -> Any:
    """Return what ``masked`` does, of a text without the white space and the byte order mark around it.

    A token often comes from a file or a secret with a line end behind it. Every way of giving one ends here.
    """
    token = masked(token)
    return Secret(token.strip().removeprefix("\ufeff").strip()) if isinstance(token, Secret) else token


def checked_token(token: Any) -> Any:
    """Return a text as ``given_token``, None where nothing is left of it.

    Raises:
        ConfigError: it is not printable ASCII text, as a header needs it.
    """
    token = given_token(token)
    if isinstance(token, Secret) and not (token.isascii() and token.isprintable()):
        raise ConfigError("The token is not printable ASCII text: check where it comes from.")
    return token or None


def exact(text: str) -> str:
    """Return a text as a ``str`` itself: a subclass may format as something else, as ``(str, Enum)`` does."""
    return str.__str__(text)
