"""Which proxy of the environment a request goes through: as httpx, which upstream's client uses, reads it.

``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, in capitals or small letters, which win; on macOS and
Windows the system's where there are none. The machine itself is no exception, unless ``NO_PROXY`` names it.
"""

from __future__ import annotations

import ipaddress
import os
from base64 import b64encode
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from langchain_kv.errors import ConfigError
from langchain_kv.values.secret import masked

__all__ = ["Proxy", "proxy_for"]

_PORTS = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """A proxy of the environment.

    Attributes:
        url: its URL, without user and password.
        authorization: the value of the header Proxy-Authorization, None where the URL has no user.
        source: the name of the variable that names it.
    """

    url: str
    authorization: str | None
    source: str


def proxy_for(endpoint: str) -> Proxy | None:
    """Return the proxy that requests to an endpoint go through, None where they go straight.

    Raises:
        ConfigError: the environment names one of a kind that is not supported. Its password is never shown.
    """
    target = urlsplit(endpoint)
    named = getproxies()
    kind = target.scheme if named.get(target.scheme) else "all"
    address = masked(named.get(kind))
    if not address or _goes_straight(target.scheme, target.hostname or "", target.port, named.get("no", "")):
        return None
    variable = f"{kind}_proxy" if f"{kind}_proxy" in os.environ else f"{kind}_proxy".upper()
    try:
        proxy = urlsplit(address if "://" in address else f"http://{address}")
        host, port = proxy.hostname, proxy.port
    except ValueError:
        host = port = None
    if not host or proxy.scheme not in _PORTS:
        raise ConfigError(
            f"{variable} of the environment does not name an HTTP proxy, the only kind that is supported: set it to"
            f" http://HOST:PORT, or name {target.hostname} in NO_PROXY."
        )
    login = masked(f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}")
    authorization = masked(f"Basic {b64encode(login.encode()).decode()}") if proxy.username else None
    shown = f"[{host}]" if ":" in host else host
    return Proxy(f"{proxy.scheme}://{shown}:{port or _PORTS[proxy.scheme]}", authorization, variable)


def _goes_straight(scheme: str, host: str, port: int | None, no_proxy: str) -> bool:
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    return any(_is_named(entry, scheme, host, port or _PORTS[scheme]) for entry in entries if entry)


def _is_named(entry: str, scheme: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    only_scheme, separator, rest = entry.partition("://")
    if separator:
        if only_scheme not in ("all", scheme):
            return False
        entry = rest
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:  # one of them is a name, or a port follows
        pass
    name, colon, only_port = entry.rpartition(":")
    if colon and only_port.isdecimal():
        if int(only_port) != port:
            return False
        entry = name
    name = entry.strip("[]")
    if name.startswith("."):
        return host.endswith(name)
    return host == name or host.endswith(f".{name}")
