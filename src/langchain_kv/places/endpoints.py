"""The endpoint of an HTTP service in a URL, checked."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from langchain_kv.errors import ConfigError

__all__ = ["HOST", "parse_endpoint"]

HOST: Final = re.compile(r"[^\s<>\"'{}|\\^`%\x00-\x20\x7f]+")

_ADDRESS = re.compile(r"(?:[^@]*@)?\[[0-9a-f:.]+\](?::.*)?", re.IGNORECASE)


def parse_endpoint(url: str, service: str) -> str:
    """Return the endpoint that a URL names, without a slash at its end or what is before a ``+`` of its scheme.

    Args:
        url: ``https://HOST``, ``http://HOST``, or one with a scheme that ends so.
        service: what is there, in words.

    Raises:
        ConfigError: it names none; the text says what to write.
    """
    scheme, _, rest = url.partition(":")
    scheme = scheme.lower()
    try:
        parts = urlsplit(f"{scheme}:{rest}")
        host = parts.hostname
    except ValueError:  # such as half of an IPv6 address
        host = None
    if host and not _is_host(host, parts.netloc):
        raise ConfigError(
            f"{host!r:.80} is not a host: write {scheme}://HOST or {scheme}://HOST:PORT, with nothing left to fill in."
        )
    if not host:
        raise ConfigError(f"The {scheme}: URL names no host: write {scheme}://HOST or {scheme}://HOST:PORT.")
    try:
        _ = parts.port
    except ValueError:
        raise ConfigError(
            f"The port of the {scheme}: URL is no number up to 65535: write {scheme}://{host} or {scheme}://{host}:PORT."
        ) from None
    if "@" in parts.netloc:
        raise ConfigError(f"The URL of {service} must not hold a user or password: give the token as token=.")
    if parts.query or parts.fragment:
        raise ConfigError(f"The URL of {service} takes no ? or # part: write {scheme}://{parts.netloc}{parts.path}.")
    return f"{scheme.rpartition('+')[2]}://{parts.netloc}{parts.path.rstrip('/')}"


def _is_host(host: str, netloc: str) -> bool:
    if netloc.rpartition("@")[2].startswith("["):
        return bool(_ADDRESS.fullmatch(netloc))
    try:
        host.encode("idna")  # as the look-up of the name will
    except UnicodeError:
        return False
    return bool(HOST.fullmatch(host))
