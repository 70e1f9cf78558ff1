"""Secrets on the command line: by a file, never by the command line itself."""

from __future__ import annotations

from langchain_kv.cli.given import decoded, read_file
from langchain_kv.errors import ConfigError
from langchain_kv.values.secret import Secret

__all__ = ["read_secret"]


def read_secret(option: str, given: str, *, is_ascii: bool = True) -> str:
    """Return the token or password that an option's ``@FILE`` holds, without the white space around it.

    Raises:
        UsageError: it is not of the form ``@FILE``, or the file cannot be read or holds none.
    """
    name = option.lstrip("-")
    if not given.startswith("@"):
        raise ConfigError(
            f"{option} takes @FILE, never the {name} itself, which everyone on this machine could see: write the {name}"
            " to a file, or set its environment variable."
        )
    try:
        secret = Secret(decoded(read_file(given[1:])).strip())
    except UnicodeDecodeError:
        secret = Secret()
    if not secret.isprintable() or not secret or (is_ascii and not secret.isascii()):
        kind = "ASCII text" if is_ascii else "text"
        what = "URL" if name == "db" else name
        raise ConfigError(f"{option}: the file {given[1:]!r} does not hold a {what}: one line of printable {kind}.")
    return secret
