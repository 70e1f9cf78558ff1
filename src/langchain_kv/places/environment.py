"""The variables of the environment that name a place, its keyspace and its token."""

from __future__ import annotations

import os
from typing import Final

from langchain_kv import limits
from langchain_kv.errors import ConfigError
from langchain_kv.values.secret import Secret, given_token

__all__ = ["keyspace_of_environment", "token_left_out", "token_of_environment", "url_of_environment"]

URL_VARIABLE: Final = "LCKV_URL"
ENDPOINT_VARIABLE: Final = "ASTRA_DB_API_ENDPOINT"
TOKEN_VARIABLE: Final = "ASTRA_DB_APPLICATION_TOKEN"  # noqa: S105 - the name of a variable, no secret
KEYSPACE_VARIABLE: Final = "ASTRA_DB_KEYSPACE"


def url_of_environment() -> str:
    """Return the URL that the environment names, empty where it names none."""
    return os.environ.get(URL_VARIABLE, "").strip() or os.environ.get(ENDPOINT_VARIABLE, "").strip()


def keyspace_of_environment() -> str:
    """Return the keyspace that the environment names, else the default; not checked."""
    return os.environ.get(KEYSPACE_VARIABLE, "").strip() or limits.DEFAULT_KEYSPACE


def token_of_environment(variable: str) -> Secret | None:
    """Return the token that a variable has, None where it has none."""
    return given_token(os.environ.get(variable)) or None


def token_left_out(variable: str) -> Secret:
    """Return the token that a variable has, in the place of one that was left out of a pickle.

    Raises:
        ConfigError: it has none.
    """
    token = token_of_environment(variable)
    if token is None:
        raise ConfigError(
            f"This store was unpickled, and a pickle carries no token: set {variable} in the process that loads it, or"
            " make the store there."
        )
    return token
