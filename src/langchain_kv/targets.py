"""From what a user gives (a URL, arguments, environment variables, objects of older clients) to settings, checked.

Nothing here opens a file or a connection.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from langchain_kv import limits
from langchain_kv.clusters import BUNDLE_FORM, CLUSTER_FORM, ClusterSettings, read_bundle_url, read_cluster_url
from langchain_kv.errors import ConfigError
from langchain_kv.secret import Secret, SecretSource, hidden

__all__ = ["Settings", "Target", "parse_target", "resolve"]

ENDPOINT_VARIABLE = "ASTRA_DB_API_ENDPOINT"
TOKEN_VARIABLE = "ASTRA_DB_APPLICATION_TOKEN"  # noqa: S105 - the name of a variable, no secret
KEYSPACE_VARIABLE = "ASTRA_DB_KEYSPACE"


FORMS = (
    "  sqlite:kv.db              a file (sqlite:PATH)\n"
    "  memory:                   this process's memory (memory:NAME for another database)\n"
    "  https://HOST, http://HOST Astra DB or any Data API\n"
    f"  {CLUSTER_FORM}\n"
    "                            Apache Cassandra, without a Data API in between\n"
    f"  {BUNDLE_FORM}     Astra DB by CQL, with its secure connect bundle"
)

_ASTRA_HOST = re.compile(r"[0-9a-f-]{36}-[a-z0-9-]+\.apps\.astra(-dev|-test)?\.datastax\.com", re.IGNORECASE)
_ASTRA_ENVIRONMENTS = {"": "prod", "-dev": "dev", "-test": "test"}
_ENVIRONMENTS = ("prod", "dev", "test", "dse", "hcd", "cassandra", "other")
_ASTRA_PATH = "/api/json"
_NAME = re.compile(rf"\w{{1,{limits.NAME_MAX_LENGTH}}}", re.ASCII)

_HOST = re.compile(r"[^\s<>\"'{}|\\^`%\x00-\x20\x7f]+")

TokenSource = str | Callable[[], str | None] | None
Caller = tuple[str | None, str | None] | str | None


@dataclass(frozen=True)
class Target:
    """A place for values, as a URL names it.

    Attributes:
        kind: what speaks to it.
        location: the endpoint without a trailing slash, the absolute path of a file, the name of a memory database, or
            the hosts of a cluster.
        synchronous: for a file, whether each commit reaches the disk before it is acknowledged (``full``) or may be
        lost
            by a power cut, never by a crash of the process (``normal``).
        keyspace: what the URL of a cluster names in its path; empty where it names none.
        cluster: for a cluster, how to reach it.
    """

    kind: Literal["dataapi", "sqlite", "memory", "cassandra"]
    location: str
    synchronous: Literal["full", "normal"] = "full"
    keyspace: str = ""
    cluster: ClusterSettings | None = None

    def without_secrets(self) -> Target:
        """Return this target without a password."""
        return self if self.cluster is None else replace(self, cluster=self.cluster.without_password())

    def with_token(self, token: str | None) -> Target:
        """Return this target, a secure connect bundle, with the token that logs in there; None leaves its own."""
        if self.cluster is None or self.cluster.bundle is None or not token:
            return self
        return replace(self, cluster=replace(self.cluster, user="token", password=hidden(token)))


@dataclass(frozen=True)
class Settings:
    """All that a backend needs. The token and the headers are never shown.

    Attributes:
        target: the place.
        collection: the collection's name.
        keyspace: the keyspace's name.
        token: the token, something that gives it when asked, or None for no token.
        path_prefix: what stands between a Data API's endpoint and ``/v1``.
        is_astra: whether the service is Astra DB, whose databases hibernate.
        user_agent: the text of the User-Agent header.
        headers: further headers.
        ca_file: the path of a file of certificate authorities to trust, None for the system's.
        request_timeout_s: seconds for one request.
        deadline_s: seconds that an operation goes on trying without any success.
        wake_timeout_s: seconds that a hibernated database is waited for.
    """

    target: Target
    collection: str
    keyspace: str
    token: TokenSource = field(default=None, repr=False)
    path_prefix: str = ""
    is_astra: bool = False
    user_agent: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None
    request_timeout_s: float = limits.REQUEST_TIMEOUT_S
    deadline_s: float = limits.DEADLINE_S
    wake_timeout_s: float = limits.WAKE_TIMEOUT_S

    def without_secrets(self) -> Settings:
        """Return these settings as they may be written down: without token, password and headers."""
        return replace(self, target=self.target.without_secrets(), token=None, headers={})

    def with_token_from_environment(self) -> Settings:
        """Return these settings with the token, or the URL's password, that the environment names now."""
        if self.target.cluster is not None:
            if self.target.cluster.bundle is not None:
                return replace(self, target=self.target.with_token(os.environ.get(TOKEN_VARIABLE)))
            named = os.environ.get(ENDPOINT_VARIABLE, "")
            same = parse_target(named) if named.startswith("cassandra:") else None
            return replace(self, target=same) if same and same.without_secrets() == self.target else self
        return replace(self, token=hidden(os.environ.get(TOKEN_VARIABLE)))


# -- URLs -------------------------------------------------------------------------------------------------------


def parse_target(url: str) -> Target:
    """Return what a URL names.

    Args:
        url: ``sqlite:PATH`` (literal, ``~`` expanded; ``%`` and ``?`` percent-encoded; ``?synchronous=normal``),
        ``memory:``,
            ``memory:NAME``, ``https://HOST`` or ``http://HOST``, ``cassandra://...`` (see ``read_cluster_url``) or
            ``cassandra+bundle:PATH``, with the token of ``ASTRA_DB_APPLICATION_TOKEN``.

    Raises:
        ConfigError: it is none of these; the text lists them.
    """
    if not isinstance(url, str):
        raise ConfigError(f"A URL must be a string, got {type(url).__name__}. Give one of:\n{FORMS}")
    scheme, colon, rest = url.strip().partition(":")
    parse = {
        "sqlite": _parse_sqlite,
        "memory": _parse_memory,
        "https": _parse_http,
        "http": _parse_http,
        "cassandra": _parse_cassandra,
        "cassandra+bundle": _parse_bundle,
    }
    parser = parse.get(scheme.lower()) if colon else None
    if parser is not None:
        return parser(scheme.lower(), rest)
    shown = f"{scheme}:..." if colon else repr(url[:60])
    raise ConfigError(f"{shown} is not a URL of a place for values. Give one of:\n{FORMS}")


def _parse_sqlite(_: str, rest: str) -> Target:
    if rest.startswith("//"):
        raise ConfigError(f"Write sqlite:PATH without slashes before the path: sqlite:{rest[2:] or 'kv.db'}")
    text, _, query = rest.partition("?")
    path = unquote(text)
    if not path or path == ":memory:":
        raise ConfigError("sqlite: names no file: write sqlite:PATH, or memory: for this process's memory.")
    if "\0" in path:
        raise ConfigError("The path of a sqlite: URL must not hold a NUL character.")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    synchronous = parameters.pop("synchronous", "full")
    if parameters:
        names = ", ".join(sorted(parameters))
        raise ConfigError(
            f"Unknown parameter of a sqlite: URL: {names}. The only one is synchronous=full|normal; write a ? in a"
            f" path as %3F."
        )
    if synchronous not in ("full", "normal"):
        raise ConfigError(f"synchronous={synchronous} is not known: it is full (the default) or normal.")
    mode: Literal["full", "normal"] = "full" if synchronous == "full" else "normal"
    return Target("sqlite", os.path.abspath(os.path.expanduser(path)), mode)


def _parse_memory(_: str, rest: str) -> Target:
    if rest.startswith("//"):
        raise ConfigError(f"Write memory:NAME without slashes: memory:{rest[2:]}")
    return Target("memory", rest)


def _parse_cassandra(_: str, rest: str) -> Target:
    cluster, keyspace = read_cluster_url(rest)
    if keyspace:
        _check_name("keyspace name", keyspace)
    return Target("cassandra", cluster.shown(), keyspace=keyspace, cluster=cluster)


def _parse_bundle(_: str, rest: str) -> Target:
    cluster = read_bundle_url(rest, hidden(os.environ.get(TOKEN_VARIABLE)))
    return Target("cassandra", cluster.shown(), cluster=cluster)


def _parse_http(scheme: str, rest: str) -> Target:
    try:
        parts = urlsplit(f"{scheme}:{rest}")
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host and not _HOST.fullmatch(host):
        raise ConfigError(
            f"{host!r:.80} is not a host: write {scheme}://HOST or {scheme}://HOST:PORT, with nothing left to fill in."
        )
    if not host:
        raise ConfigError(f"The {scheme}: URL names no host: write {scheme}://HOST or {scheme}://HOST:PORT.")
    if "@" in parts.netloc:
        raise ConfigError("The URL of a Data API must not hold a user or password: give the token as token=.")
    if parts.query or parts.fragment:
        raise ConfigError(f"The URL of a Data API takes no ? or # part: write {scheme}://{parts.netloc}{parts.path}.")
    return Target("dataapi", f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}")


# -- arguments --------------------------------------------------------------------------------------------------


def resolve(
    collection: str,
    url: str | None,
    *,
    token: Any = None,
    namespace: str | None = None,
    keyspace: str | None = None,
    environment: str | None = None,
    ext_callers: Sequence[Caller] | None = None,
    component: str = "langchain_store",
    api_options: Any = None,
    request_timeout_s: float | None = None,
    deadline_s: float | None = None,
    wake_timeout_s: float | None = None,
) -> Settings:
    """Return the settings that arguments and environment variables make together; arguments win.

    Args:
        collection: 1 to 48 ASCII letters, digits and underscores.
        url: see ``parse_target``; None takes ``ASTRA_DB_API_ENDPOINT``.
        token: a text, or an object with ``get_token()`` (asked anew for each operation); None takes
            ``ASTRA_DB_APPLICATION_TOKEN``.
        namespace: the keyspace, by its older name.
        keyspace: the keyspace; None takes ``ASTRA_DB_KEYSPACE``, then ``default_keyspace``.
        environment: ``prod``, ``dev``, ``test`` (Astra DB), ``hcd``, ``dse``, ``cassandra`` or ``other``; None reads
        it off the URL.
        ext_callers: names, or (name, version) pairs, that go first in the User-Agent.
        component: the name of the store's kind in the User-Agent.
        api_options: an astrapy ``APIOptions`` (or anything with its attributes), of which timeouts, token,
        environment, callers,
            headers, the certificate file and the API path are read.
        request_timeout_s: seconds for one request; wins over ``api_options``.
        deadline_s: seconds that an operation goes on trying without any success; wins over ``api_options``.
        wake_timeout_s: seconds that a hibernated Astra database is waited for, in place of ``deadline_s``.

    Raises:
        ConfigError: names the argument and what to give.
    """
    token = hidden(token)
    _check_name("collection name", collection)
    given = _APIOptions(api_options)
    address = url if url is not None else os.environ.get(ENDPOINT_VARIABLE)
    if not address:
        raise ConfigError(
            "API endpoint for Data API not provided: no URL says where values are kept. Pass api_endpoint= (url= for"
            " KVStore) or"
            f" set {ENDPOINT_VARIABLE} to one of:\n{FORMS}"
        )
    target = parse_target(address)
    if target.cluster is not None and target.cluster.bundle is not None:
        source = _token_source(token)
        target = target.with_token(source() if callable(source) else source)
    patience_s = _seconds("deadline_s", deadline_s, given.deadline_s, limits.DEADLINE_S)
    settings = Settings(target, collection, target.keyspace or _keyspace(namespace, keyspace), deadline_s=patience_s)
    if target.kind != "dataapi":
        return settings
    environment = _environment(target, environment or given.environment)
    is_astra = environment in _ASTRA_ENVIRONMENTS.values()
    if token is None:
        token = given.token
    return replace(
        settings,
        token=_token_source(token if token is not None else hidden(os.environ.get(TOKEN_VARIABLE))),
        path_prefix=given.path_prefix if given.path_prefix is not None else (_ASTRA_PATH if is_astra else ""),
        is_astra=is_astra,
        user_agent=_user_agent([*_listed(ext_callers), *given.callers], component),
        headers=given.headers,
        ca_file=given.ca_file,
        request_timeout_s=_seconds(
            "request_timeout_s", request_timeout_s, given.request_timeout_s, limits.REQUEST_TIMEOUT_S
        ),
        wake_timeout_s=_seconds("wake_timeout_s", wake_timeout_s, None, limits.WAKE_TIMEOUT_S),
    )


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r:.80} is not a {what}: give 1 to {limits.NAME_MAX_LENGTH} ASCII letters, digits and underscores."
        )


def _keyspace(namespace: str | None, keyspace: str | None) -> str:
    if namespace is not None and keyspace is not None and namespace != keyspace:
        raise ConfigError(
            f"namespace={namespace!r:.80} and keyspace={keyspace!r:.80} are two names of one thing: give one."
        )
    given = keyspace if keyspace is not None else namespace
    name = given if given is not None else os.environ.get(KEYSPACE_VARIABLE, "").strip() or limits.DEFAULT_KEYSPACE
    _check_name("keyspace name", name)
    return name


def _environment(target: Target, given: str | None) -> str:
    host = urlsplit(target.location).hostname or ""
    astra = _ASTRA_HOST.fullmatch(host)
    found = _ASTRA_ENVIRONMENTS[(astra.group(1) or "").lower()] if astra else None
    if given is None:
        return found or "other"
    name = str(given).lower()
    if name not in _ENVIRONMENTS:
        raise ConfigError(f"environment={given!r:.80} is not known: it is one of {', '.join(_ENVIRONMENTS)}.")
    if found and found != name:
        raise ConfigError(
            f"environment={name!r} contradicts the endpoint, which is Astra DB's {found!r}: leave environment out."
        )
    return name


def _token_source(token: Secret | SecretSource | None) -> TokenSource:
    if token is None or isinstance(token, str):
        return token or None
    if not token.has_tokens:
        raise ConfigError(f"token must be a string or have a get_token() method, got {token.kind}.")
    return token


def _user_agent(callers: Sequence[Caller], component: str) -> str:
    from langchain_core import __version__ as core_version

    from langchain_kv._version import __version__

    pairs = [_pair(caller) for caller in callers]
    pairs += [("langchain", core_version), (component, __version__), ("langchain-kv", __version__)]
    text = " ".join(f"{name}/{version}" if version else str(name) for name, version in pairs if name)
    return re.sub(r"[^\x20-\x7e]", "?", text)  # a header holds no control characters


def _listed(callers: Sequence[Caller] | None) -> Sequence[Caller]:
    if isinstance(callers, str):
        raise ConfigError("ext_callers must be a list of names and (name, version) pairs, got one string: pass [name].")
    return callers or ()


def _pair(caller: Caller) -> tuple[str | None, str | None]:
    if caller is None or isinstance(caller, str):
        return caller, None
    if isinstance(caller, tuple | list) and len(caller) == 2:
        return caller[0], caller[1]
    raise ConfigError("ext_callers must be a list of names and (name, version) pairs.")


def _seconds(name: str, given: float | None, from_options: float | None, default: float) -> float:
    value = given if given is not None else from_options if from_options is not None else default
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"{name} must be a number of seconds above 0, got {value!r:.40}.")
    return float(value)


class _APIOptions:
    """What is taken from an astrapy ``APIOptions``, read by attribute names; what it leaves unset is None."""

    def __init__(self, options: Any) -> None:
        timeouts = getattr(options, "timeout_options", None)
        urls = getattr(options, "data_api_url_options", None)
        self.environment = _only(str, getattr(options, "environment", None))
        token = getattr(options, "token", None)
        self.token = hidden(token) if isinstance(token, str) or callable(getattr(token, "get_token", None)) else None
        callers = getattr(options, "callers", None)
        self.callers: list[Caller] = list(callers) if isinstance(callers, list | tuple) else []
        headers = getattr(options, "database_additional_headers", None)
        items = headers.items() if isinstance(headers, dict) else ()
        self.headers: dict[str, str] = {name: hidden(value) for name, value in items if value is not None}
        self.ca_file = _only(str, getattr(options, "ca_cert_path", None))
        path = _only(str, getattr(urls, "api_path", None))
        self.path_prefix = None if path is None else "/" + path.strip("/") if path.strip("/") else ""
        self.request_timeout_s = _from_ms(getattr(timeouts, "request_timeout_ms", None))
        self.deadline_s = _from_ms(getattr(timeouts, "general_method_timeout_ms", None))


def _only(kind: type[str], value: Any) -> str | None:
    return value if isinstance(value, kind) else None


def _from_ms(value: Any) -> float | None:
    # astrapy's 0 stands for "no limit"; a day is as good as none.
    return (value / 1000 or 86_400.0) if isinstance(value, int | float) and not isinstance(value, bool) else None
