"""Whether the library of an extra is installed, found out before anything imports it."""

from __future__ import annotations

from importlib.util import find_spec

from langchain_kv.errors import ConfigError

__all__ = ["is_installed", "require"]


def is_installed(module: str) -> bool:
    """Return whether a library is there. Of ``a.b``, ``a`` is imported for that."""
    return find_spec(module) is not None


def require(module: str, extra: str, what: str) -> None:
    """Refuse to go on without a library.

    Args:
        module: the library's.
        extra: the extra of this package that brings it.
        what: what needs it, in the plural.

    Raises:
        ConfigError: it is not installed; the text says how to install it.
    """
    if not is_installed(module):
        raise ConfigError(f"{what} need {module}, which is not installed: pip install 'langchain-kv[{extra}]'")
