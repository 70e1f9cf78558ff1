"""What a ``cassandra:`` URL says of an Apache Cassandra cluster: hosts, user, parameters, checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote

from langchain_kv.errors import ConfigError
from langchain_kv.values.secret import hidden

__all__ = ["BUNDLE_FORM", "CLUSTER_FORM", "ClusterSettings", "read_bundle_url", "read_cluster_url"]

CLUSTER_FORM: Final = "cassandra://USER:PASSWORD@HOST1,HOST2:PORT/KEYSPACE"
BUNDLE_FORM: Final = "cassandra+bundle:PATH"

CONSISTENCIES: Final = ("local_quorum", "quorum", "all")
"""Levels at which a read sees every acknowledged write; the first is what the Data API uses."""

PATIENCE_S: Final = 2.0
"""Seconds that an operation goes on without any success where no store says how long: a server's clients are patient
themselves, and are better told soon (the real Data API tells after 2 s, measured)."""

T = TypeVar("T")


@dataclass(frozen=True)
class ClusterSettings:
    """How to reach a cluster, and how to use it. The password is never shown.

    Attributes:
        hosts: names or addresses of some of its nodes; the driver finds the others. None for a bundle.
        port: where every node speaks CQL.
        user: None logs in to a cluster that asks for nobody.
        password: the user's.
        local_dc: the data centre that is asked; None takes that of the first host that answers.
        consistency: of reads and of committed writes. Conditions of writes are checked at LOCAL_SERIAL whatever it is,
            as the Data API does: two serial levels on one row would not see each other.
        connect_timeout_s: seconds for connecting to one node.
        request_timeout_s: seconds for one statement.
        deadline_s: seconds that an operation goes on trying without any success: a store's own argument, no parameter
            of the URL.
        in_chunk: keys of one reading statement; 1 reads each key by a statement of its own.
        replication: replicas of keyspaces that are created; None stands for 3, or as many as there are nodes.
        ssl: whether connections are encrypted.
        ca_file: the authorities whose certificates are trusted; None trusts the system's.
        cert_file: the client's certificate, for clusters that ask for one.
        key_file: its key; None looks for it in ``cert_file``.
        verify_hostname: whether a node's certificate must carry the address that is connected to.
        bundle: the path of Astra DB's secure connect bundle, which says hosts, data centre and certificates.
    """

    hosts: tuple[str, ...]
    port: int = 9042
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    local_dc: str | None = None
    consistency: str = "local_quorum"
    connect_timeout_s: float = 10.0
    request_timeout_s: float = 10.0
    deadline_s: float = PATIENCE_S
    in_chunk: int = 50
    replication: int | None = None
    ssl: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify_hostname: bool = True
    bundle: str | None = None

    def without_password(self) -> ClusterSettings:
        """Return these settings as they may be written down."""
        return replace(self, password=None)

    def shown(self) -> str:
        """Return the hosts and the port, or the bundle's path, as in the URL."""
        if self.bundle is not None:
            return self.bundle
        return f"{','.join(f'[{host}]' if ':' in host else host for host in self.hosts)}:{self.port}"


def read_cluster_url(rest: str) -> tuple[ClusterSettings, str]:
    """Return what a URL says behind ``cassandra:``, and the keyspace that its path names (empty where it has none).

    User and password are percent-encoded where they hold ``@ : / ? # %``. Parameters are the names of
    ``ClusterSettings``' attributes from ``local_dc`` on; naming a ``ca_file`` or ``cert_file`` turns ``ssl`` on.

    Raises:
        ConfigError: names the part and what to write; it never shows the password.
    """
    if not rest.startswith("//"):
        raise ConfigError(f"A cassandra: URL has the form {CLUSTER_FORM}.")
    address, _, query = rest[2:].partition("?")
    if "@" in query and "@" not in address:
        raise ConfigError("The cassandra: URL has a ? before its @: write a ? in a user or password as %3F.")
    login, _, place = address.rpartition("@")
    hosts_text, _, keyspace = place.partition("/")
    hosts, port = _hosts(hosts_text)
    user, colon, password = login.partition(":")
    if colon and not user:
        raise ConfigError(f"The cassandra: URL has a password and no user: write {CLUSTER_FORM}.")
    settings = ClusterSettings(
        hosts,
        port,
        unquote(user) if user else None,
        hidden(unquote(password)) if colon else None,
        **_parameters(query),
    )
    return settings, unquote(keyspace.rstrip("/"))


def read_bundle_url(rest: str, token: str | None) -> ClusterSettings:
    """Return what a URL says behind ``cassandra+bundle:``: a path (``%`` and ``?`` percent-encoded) and parameters.

    Args:
        rest: of the URL.
        token: the application token to log in with.

    Raises:
        ConfigError: there is no such file, or a parameter says what the bundle does.
    """
    text, _, query = rest.partition("?")
    if not text or text.startswith("//"):
        raise ConfigError(f"Write {BUNDLE_FORM}, with the path of the secure connect bundle that Astra DB gave you.")
    path = os.path.abspath(os.path.expanduser(unquote(text)))
    if not os.path.isfile(path):
        raise ConfigError(
            f"The cassandra+bundle: URL names no file: {path}. Download the database's secure connect bundle there."
        )
    parameters = _parameters(query)
    refused = [name for name in parameters if name not in _BUNDLE_PARAMETERS]
    if refused:
        raise ConfigError(
            f"{', '.join(refused)} cannot be given with a secure connect bundle, which says it itself. There are"
            f" {', '.join(_BUNDLE_PARAMETERS)}."
        )
    return ClusterSettings((), user="token" if token else None, password=hidden(token), bundle=path, **parameters)


def _hosts(text: str) -> tuple[tuple[str, ...], int]:
    hosts: list[str] = []
    ports: set[str] = set()
    for part in text.split(","):
        if part.startswith("["):  # an IPv6 address
            host, _, port = part[1:].partition("]")
            port = port.removeprefix(":")
        else:
            host, _, port = part.partition(":")
        if not host or any(character.isspace() or character in "<>{}[]" for character in host):
            raise ConfigError(f"{host!r:.80} in the cassandra: URL is no host: write {CLUSTER_FORM}.")
        hosts.append(host)
        ports.update({port} - {""})
    if len(ports) > 1:
        raise ConfigError("The hosts of a cassandra: URL have different ports: all nodes must listen on one.")
    port = ports.pop() if ports else "9042"
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        # Not shown: without an @ it is a password.
        raise ConfigError(f"The port of the cassandra: URL is no number up to 65535: write {CLUSTER_FORM}.")
    return tuple(hosts), int(port)


def _parameters(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _READERS:
            raise ConfigError(f"Unknown parameter of a cassandra: URL: {name[:40]}. There are {', '.join(_READERS)}.")
        found[name] = _READERS[name](name, value)
    if found.get("key_file") and not found.get("cert_file"):
        raise ConfigError("key_file= in a cassandra: URL goes with cert_file=: give both.")
    if found.get("ca_file") or found.get("cert_file"):
        if found.get("ssl") is False:
            raise ConfigError("ssl=false in a cassandra: URL contradicts ca_file= and cert_file=: leave one out.")
        found["ssl"] = True
    return found


def _text(name: str, value: str) -> str:
    if not value:
        raise ConfigError(f"{name}= in the cassandra: URL is empty: give a value, or leave it out.")
    return value


def _path(name: str, value: str) -> str:
    path = os.path.abspath(os.path.expanduser(_text(name, value)))
    if not os.path.isfile(path):
        raise ConfigError(f"{name}= in the cassandra: URL names no file: {path}")
    return path


def _flag(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise ConfigError(f"{name}= in the cassandra: URL is true or false, not {value!r:.20}.")
    return value == "true"


def _consistency(name: str, value: str) -> str:
    if value.lower() not in CONSISTENCIES:
        raise ConfigError(
            f"{name}= in the cassandra: URL is one of {', '.join(CONSISTENCIES)}, not {value!r:.20}: others would not"
            " see acknowledged writes."
        )
    return value.lower()


def _number(kind: Callable[[str], T], least: float, most: float) -> Callable[[str, str], T]:
    def read(name: str, value: str) -> T:
        try:
            number: Any = kind(value)
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            raise ConfigError(
                f"{name}= in the cassandra: URL is a number from {least} to {most}, not {value!r:.20}."
            ) from None
        result: T = number
        return result

    return read


_READERS: Final[dict[str, Callable[[str, str], Any]]] = {
    "local_dc": _text,
    "consistency": _consistency,
    "connect_timeout_s": _number(float, 0.01, 86_400),
    "request_timeout_s": _number(float, 0.01, 86_400),
    "in_chunk": _number(int, 1, 1_000),
    "replication": _number(int, 1, 100),
    "ssl": _flag,
    "ca_file": _path,
    "cert_file": _path,
    "key_file": _path,
    "verify_hostname": _flag,
}

_BUNDLE_PARAMETERS: Final = ("consistency", "connect_timeout_s", "request_timeout_s", "in_chunk")
"""What is left to say beside a bundle."""
