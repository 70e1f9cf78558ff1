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
from langchain_kv.errors import ConfigError
from langchain_kv.places.clusters import BUNDLE_FORM, CLUSTER_FORM, ClusterSettings, read_bundle_url, read_cluster_url
from langchain_kv.places.options import Caller, Options, checked_callers, seconds, user_agent
from langchain_kv.values.keys import type_name
from langchain_kv.values.secret import (
    Secret,
    SecretSource,
    SecretText,
    TokenProvider,
    checked_token,
    exact,
    given_token,
    hidden,
)

__all__ = ["Caller", "Settings", "Target", "Token", "parse_target", "resolve"]

URL_VARIABLE = "LCKV_URL"
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

FORMS_IN_A_LINE = f"sqlite:PATH, https://HOST, http://HOST:PORT, {CLUSTER_FORM} or {BUNDLE_FORM}"
"""The same for who has one line, and no use for memory: the command."""

_ASTRA_HOST = re.compile(r"[0-9a-f-]{36}-[a-z0-9-]+\.apps\.astra(-dev|-test)?\.datastax\.com", re.IGNORECASE)
_ASTRA_ENVIRONMENTS = {"": "prod", "-dev": "dev", "-test": "test"}
_ENVIRONMENTS = ("prod", "dev", "test", "dse", "hcd", "cassandra", "other")
_ASTRA_PATH = "/api/json"
_NAME = re.compile(rf"\w{{1,{limits.NAME_MAX_LENGTH}}}", re.ASCII)

_HOST = re.compile(r"[^\s<>\"'{}|\\^`%\x00-\x20\x7f]+")

_ADDRESS = re.compile(r"(?:[^@]*@)?\[[0-9a-f:.]+\](?::.*)?", re.IGNORECASE)

TokenSource = str | Callable[[], str | None] | None
Token = str | TokenProvider | Callable[[], str | None] | SecretText | None
"""What may be given as a token: the text, an object that has it (``get_token()``, or pydantic's ``SecretStr``), or a
function that returns it."""


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
        return replace(self, cluster=replace(self.cluster, user="token", password=given_token(token)))


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
        lacks_token: whether there was a token, which was left out of what was written down.
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
    lacks_token: bool = False

    def without_secrets(self) -> Settings:
        """Return these settings as they may be written down: without token, password and headers."""
        lacks_token = self.lacks_token or self.token is not None
        return replace(self, target=self.target.without_secrets(), token=None, headers={}, lacks_token=lacks_token)

    def with_token_from_environment(self) -> Settings:
        """Return these settings with the token, or the URL's password, that the environment names now."""
        if self.target.cluster is not None:
            if self.target.cluster.bundle is not None:
                return replace(self, target=self.target.with_token(_token_of_environment()))
            named = _url_of_environment()
            same = parse_target(named) if named.startswith("cassandra:") else None
            return replace(self, target=same) if same and same.without_secrets() == self.target else self
        return replace(self, token=_token_left_out if self.lacks_token else _token_of_environment())


def _url_of_environment() -> str:
    return os.environ.get(URL_VARIABLE, "").strip() or os.environ.get(ENDPOINT_VARIABLE, "").strip()


def _token_of_environment() -> Secret | None:
    return given_token(os.environ.get(TOKEN_VARIABLE)) or None


def _token_left_out() -> Secret:
    token = _token_of_environment()
    if token is None:
        raise ConfigError(
            f"This store was unpickled, and a pickle carries no token: set {TOKEN_VARIABLE} in the process that loads"
            " it, or make the store there."
        )
    return token


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
    if isinstance(url, os.PathLike):
        raise ConfigError(f"A URL must be a string, got a path: write {_file_url(os.fspath(url))!r}.")
    if not isinstance(url, str):
        raise ConfigError(f"A URL must be a string, got {type_name(url)}. Give one of:\n{FORMS}")
    url = exact(url).strip()
    scheme, colon, rest = url.partition(":")
    parser = _PARSERS.get(scheme.lower()) if colon else None
    if parser is not None:
        return parser(scheme.lower(), rest)
    meant = _meant(url)
    if meant is not None:
        raise ConfigError(
            f"{url!r} is not a URL of a place for values: did you mean {meant}? Else give one of:\n{FORMS}"
        )
    shown = f"{scheme:.40}:..." if colon else repr(url[:60])
    raise ConfigError(f"{shown} is not a URL of a place for values. Give one of:\n{FORMS}")


def _meant(text: str) -> str | None:
    """Return the URL that was probably meant, None where that is not clear or the text may hold a password."""
    import difflib  # seldom needed

    scheme, colon, rest = text.partition(":")
    if not text or not text.isprintable() or len(text) > 200 or "@" in text:
        return None
    if _ASTRA_HOST.fullmatch(text.partition("/")[0]):
        return f"https://{text}"
    if not colon or (len(scheme) == 1 and rest[:1] in ("\\", "/")):  # a path, also one of Windows
        return _file_url(text)
    if rest.partition("/")[0].isdecimal() and _HOST.fullmatch(scheme):
        return f"http://{text}"
    if scheme.lower() == "file":
        return f"sqlite:{rest.removeprefix('//')}"
    close = difflib.get_close_matches(scheme.lower(), _PARSERS, 1, 0.8)
    if not close or (close == ["sqlite"] and rest.startswith("//")):
        return _file_url_of_others(rest)[0] if close else None
    return f"{close[0]}:{rest}"


def _file_url(path: str | bytes) -> str:
    return "sqlite:" + os.fsdecode(path).replace("%", "%25").replace("?", "%3F")


def _file_url_of_others(rest: str) -> tuple[str, str]:
    """Return what ``sqlite:`` with slashes means in SQLAlchemy, and in words where that is."""
    path = rest.removeprefix("//").removeprefix("/")
    if path in ("", ":memory:"):
        return "memory:", "the memory of this process"
    if path.startswith("/") or path[1:3] in (":/", ":\\"):
        return f"sqlite:{path}", "an absolute path"
    return f"sqlite:{path}", _RELATIVE


_RELATIVE = "from the working directory on"


def _parse_sqlite(_: str, rest: str) -> Target:
    if rest.startswith("//"):
        meant, where = _file_url_of_others(rest)
        other = f", or sqlite:{rest[2:]} for a file from the root on" if where == _RELATIVE and rest[2] == "/" else ""
        raise ConfigError(f"Write {meant} ({where}, as SQLAlchemy reads these slashes){other}.")
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
        _checked_name("keyspace name", keyspace)
    return Target("cassandra", cluster.shown(), keyspace=keyspace, cluster=cluster)


def _parse_bundle(_: str, rest: str) -> Target:
    cluster = read_bundle_url(rest, _token_of_environment())
    return Target("cassandra", cluster.shown(), cluster=cluster)


def _is_host(host: str, netloc: str) -> bool:
    if netloc.rpartition("@")[2].startswith("["):
        return bool(_ADDRESS.fullmatch(netloc))
    try:
        host.encode("idna")  # as the look-up of the name will
    except UnicodeError:
        return False
    return bool(_HOST.fullmatch(host))


def _parse_http(scheme: str, rest: str) -> Target:
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
        raise ConfigError("The URL of a Data API must not hold a user or password: give the token as token=.")
    if parts.query or parts.fragment:
        raise ConfigError(f"The URL of a Data API takes no ? or # part: write {scheme}://{parts.netloc}{parts.path}.")
    return Target("dataapi", f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}")


_PARSERS: dict[str, Callable[[str, str], Target]] = {
    "sqlite": _parse_sqlite,
    "memory": _parse_memory,
    "https": _parse_http,
    "http": _parse_http,
    "cassandra": _parse_cassandra,
    "cassandra+bundle": _parse_bundle,
}


# -- arguments --------------------------------------------------------------------------------------------------


def resolve(
    collection: str,
    url: str | None,
    *,
    token: Token | None = None,
    namespace: str | None = None,
    keyspace: str | None = None,
    environment: str | None = None,
    ext_callers: Sequence[Caller] | None = None,
    component: str = "langchain_store",
    api_options: object = None,
    request_timeout_s: float | None = None,
    deadline_s: float | None = None,
    wake_timeout_s: float | None = None,
) -> Settings:
    """Return the settings that arguments and environment variables make together; arguments win.

    Args:
        collection: 1 to 48 ASCII letters, digits and underscores.
        url: see ``parse_target``; None takes ``LCKV_URL``, then ``ASTRA_DB_API_ENDPOINT``.
        token: see ``Token``; what is no text is asked anew for each operation. None takes
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
    options = Options(api_options)
    target = parse_target(_address(url))
    is_bundle = target.cluster is not None and target.cluster.bundle is not None
    source = _token_source(options.token if token is None else token)
    if is_bundle:
        target = target.with_token(source() if callable(source) else source)
    environment = _environment(target, environment if environment is not None else options.environment)
    is_http = target.kind == "dataapi"
    is_astra = is_http and environment in _ASTRA_ENVIRONMENTS.values()
    if is_http and token is None and options.token is None:
        source = _token_source(_token_of_environment())
    # Whatever the target, every argument is looked at: what works on the laptop works elsewhere.
    return Settings(
        target,
        _checked_name("collection name", collection),
        _keyspace(target, namespace, keyspace),
        token=source if is_http else None,
        path_prefix=options.path_prefix if options.path_prefix is not None else (_ASTRA_PATH if is_astra else ""),
        is_astra=is_astra,
        user_agent=user_agent([*checked_callers(ext_callers), *options.callers], component),
        headers=options.headers,
        ca_file=options.ca_file,
        request_timeout_s=seconds("request_timeout_s", request_timeout_s, options.request_timeout_s)
        or limits.REQUEST_TIMEOUT_S,
        deadline_s=seconds("deadline_s", deadline_s, options.deadline_s) or limits.DEADLINE_S,
        wake_timeout_s=seconds("wake_timeout_s", wake_timeout_s) or limits.WAKE_TIMEOUT_S,
    )


def _address(url: str | None) -> str:
    address = _url_of_environment() if url is None else url
    if isinstance(address, str) and not address:
        raise ConfigError(
            "API endpoint for Data API not provided: no URL says where values are kept. Pass api_endpoint= (url= for"
            f" KVStore) or set {URL_VARIABLE} or {ENDPOINT_VARIABLE} to one of:\n{FORMS}"
        )
    return address


def _checked_name(what: str, name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(exact(name)):
        raise ConfigError(
            f"{name!r:.80} is not a {what}: give 1 to {limits.NAME_MAX_LENGTH} ASCII letters, digits and underscores."
        )
    return exact(name)


def _keyspace(target: Target, namespace: str | None, keyspace: str | None) -> str:
    names = {_checked_name("keyspace name", name) for name in (keyspace, namespace) if name is not None}
    if len(names) > 1:
        raise ConfigError(
            f"namespace={namespace!r:.80} and keyspace={keyspace!r:.80} are two names of one thing: give one."
        )
    if target.keyspace:  # of a cluster's URL
        return target.keyspace
    named = os.environ.get(KEYSPACE_VARIABLE, "").strip() or limits.DEFAULT_KEYSPACE
    return names.pop() if names else _checked_name("keyspace name", named)


def _environment(target: Target, given: str | None) -> str:
    host = urlsplit(target.location).hostname or "" if target.kind == "dataapi" else ""
    astra = _ASTRA_HOST.fullmatch(host)
    found = _ASTRA_ENVIRONMENTS[(astra.group(1) or "").lower()] if astra else None
    if given is None:
        return found or "other"
    name = exact(given).lower() if isinstance(given, str) else ""
    if name not in _ENVIRONMENTS:
        raise ConfigError(f"environment={given!r:.80} is not known: it is one of {', '.join(_ENVIRONMENTS)}.")
    if found and found != name:
        raise ConfigError(
            f"environment={name!r} contradicts the endpoint, which is Astra DB's {found!r}: leave environment out."
        )
    return name


def _token_source(given: Any) -> TokenSource:
    token: Secret | SecretSource | None = checked_token(given)
    if isinstance(token, SecretSource) and not token.has_tokens:
        raise ConfigError(
            f"token must be a string, an object with get_token(), or a function that returns it; got {token.kind}."
        )
    return token
