"""``cassandra:`` and ``cassandra+bundle:``, an Apache Cassandra cluster: hosts, user, parameters, checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast
from urllib.parse import parse_qsl, quote, unquote, urlencode

from langchain_kv.engines.cassandra.settings import ClusterSettings
from langchain_kv.errors import ConfigError
from langchain_kv.places.base import BackendOptions
from langchain_kv.places.embedded import EmbeddedPlace
from langchain_kv.places.environment import TOKEN_VARIABLE, token_of_environment, url_of_environment
from langchain_kv.places.forms import BUNDLE_FORM, CLUSTER_FORM
from langchain_kv.places.options import checked_name
from langchain_kv.runtime.forks import importing
from langchain_kv.values.secret import given_token, masked

if TYPE_CHECKING:
    from langchain_kv.backends.base import Backend
    from langchain_kv.engines.base import Engine
    from langchain_kv.engines.cassandra.engine import CassandraEngine

__all__ = [
    "BundlePlace",
    "ClusterPlace",
    "parse_bundle_url",
    "parse_cluster_url",
    "read_bundle_url",
    "read_cluster_url",
]

CONSISTENCIES: Final = ("local_quorum", "quorum", "all")
"""Levels at which a read sees every acknowledged write; the first is what the Data API uses."""

T = TypeVar("T")


@dataclass(frozen=True)
class ClusterPlace(EmbeddedPlace):
    """An Apache Cassandra cluster.

    Attributes:
        settings: how to reach it.
        keyspace: what the URL names in its path; empty where it names none.
    """

    settings: ClusterSettings
    keyspace: str = ""

    @property
    def shown(self) -> str:
        """The hosts and the port, or the bundle's path."""
        return f"cassandra:{self.settings.shown()}"

    @property
    def url_shown(self) -> str:
        """The URL without a keyspace; of a password it has ``***``."""
        login = ""
        if self.settings.user is not None:
            login = quote(self.settings.user, safe="") + (":***@" if self.settings.password else "@")
        return f"cassandra://{login}{self.settings.shown()}{self._query()}"

    def _query(self) -> str:
        """Return the parameters of the URL that say something."""
        usual = ClusterSettings(())
        told = {name: getattr(self.settings, name) for name in _READERS}
        said = {name: value for name, value in told.items() if value != getattr(usual, name)}
        return f"?{urlencode({name: _written(value) for name, value in said.items()})}" if said else ""

    def make_engine(self) -> Engine:
        """Return an engine for the cluster.

        Raises:
            ConfigError: the driver is not installed.
        """
        with importing.lock:
            from langchain_kv.engines.cassandra.driver import require_driver

            require_driver()
            from langchain_kv.engines.cassandra.engine import CassandraEngine

        return CassandraEngine(self.settings)

    def make_backend(self, engine: Engine, options: BackendOptions, *, on_close: Callable[[], None]) -> Backend:
        """Return a backend for one collection, also for rows that others wrote."""
        with importing.lock:
            from langchain_kv.backends.cassandra import CassandraBackend
            from langchain_kv.backends.collections import CollectionForm
            from langchain_kv.engines.base import CollectionName

        collection = CollectionName(options.keyspace, options.collection)
        form = CollectionForm(options.namespaced, options.atomic)
        return CassandraBackend(cast("CassandraEngine", engine), collection, form=form, on_close=on_close)

    def with_options(self, options: BackendOptions) -> Self:
        """Return this place with the store's patience."""
        return replace(self, settings=self.settings.patient_for(options.deadline_s))

    def without_secrets(self) -> Self:
        """Return this place without its password."""
        return replace(self, settings=self.settings.without_password())

    def with_secrets(self) -> ClusterPlace:
        """Return this place with the password of the environment's URL, where that is the same URL."""
        url = url_of_environment()
        same = parse_cluster_url(url) if url.startswith("cassandra:") else None
        return same if same and same.without_secrets() == self else self


@dataclass(frozen=True)
class BundlePlace(ClusterPlace):
    """Astra DB by CQL. The application token logs in: the user's, else that of the environment."""

    @property
    def url_shown(self) -> str:
        """The URL with the bundle's path."""
        return f"cassandra+bundle:{quote(self.settings.shown())}{self._query()}"

    def with_options(self, options: BackendOptions) -> Self:
        """Return this place with the store's patience and its token, where one was given."""
        place = super().with_options(options)
        token = options.token() if callable(options.token) else options.token
        return place._with_token(token) if token else place

    def with_secrets(self) -> Self:
        """Return this place with the environment's token."""
        token = token_of_environment(TOKEN_VARIABLE)
        return self._with_token(token) if token else self

    def _with_token(self, token: str) -> Self:
        return replace(self, settings=replace(self.settings, user="token", password=given_token(token)))


def parse_cluster_url(url: str) -> ClusterPlace:
    """Return the cluster that ``cassandra://...`` names.

    Raises:
        ConfigError: see ``read_cluster_url``.
    """
    settings, keyspace = read_cluster_url(url.partition(":")[2])
    return ClusterPlace(settings, checked_name("keyspace name", keyspace) if keyspace else "")


def parse_bundle_url(url: str) -> BundlePlace:
    """Return the database of the bundle that ``cassandra+bundle:PATH`` names, with the environment's token.

    Raises:
        ConfigError: see ``read_bundle_url``.
    """
    return BundlePlace(read_bundle_url(url.partition(":")[2], token_of_environment(TOKEN_VARIABLE)))


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
        masked(unquote(password)) if colon else None,
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
    return ClusterSettings((), user="token" if token else None, password=masked(token), bundle=path, **parameters)


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


def _written(value: Any) -> str:
    """Return the text of a parameter, which its reader reads as the same."""
    return str(value).lower() if isinstance(value, bool) else str(value)


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
