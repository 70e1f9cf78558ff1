"""Which URL was probably meant by a text that is none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from langchain_kv.places.dataapi import ASTRA_HOST
from langchain_kv.places.endpoints import HOST
from langchain_kv.places.files import file_url, file_url_of_others

__all__ = ["meant", "meant_scheme"]


def meant(text: str, schemes: Iterable[str]) -> str | None:
    """Return the URL that was probably meant, None where that is not clear or the text may hold a password.

    Args:
        text: what was given.
        schemes: those that there are.
    """
    scheme, colon, rest = text.partition(":")
    if not text or not text.isprintable() or len(text) > 200 or "@" in text:
        return None
    if text.strip(":").lower() == "memory":  # also SQLite's own ":memory:"
        return "memory:"
    if ASTRA_HOST.fullmatch(text.partition("/")[0]):
        return f"https://{text}"
    if not colon or (len(scheme) == 1 and rest[:1] in ("\\", "/")):  # a path, also one of Windows
        return file_url(text)
    if rest.partition("/")[0].isdecimal() and HOST.fullmatch(scheme):
        return f"http://{text}"
    if scheme.lower() == "file":
        return f"sqlite:{rest.removeprefix('//')}"
    close = meant_scheme(scheme, schemes)
    if close is None or (close == "sqlite" and rest.startswith("//")):
        return file_url_of_others(rest)[0] if close else None
    return f"{close}:{rest}"


def meant_scheme(scheme: str, schemes: Iterable[str]) -> str | None:
    """Return the scheme probably meant, such as ``postgresql`` by ``postgres``; None where that is not clear."""
    return next(iter(difflib.get_close_matches(scheme.lower(), list(schemes), 1, 0.8)), None)
