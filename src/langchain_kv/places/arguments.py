"""From what a user gives (a URL or a place, arguments, environment variables, objects of older clients) to a place and
what a store asks of it, checked.

Nothing here opens a file or a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from langchain_kv import limits
from langchain_kv.errors import ConfigError
from langchain_kv.places.base import BackendOptions, Place, TokenSource
from langchain_kv.places.environment import (
    ENDPOINT_VARIABLE,
    URL_VARIABLE,
    keyspace_of_environment,
    token_of_environment,
    url_of_environment,
)
from langchain_kv.places.forms import FORMS
from langchain_kv.places.options import (
    Caller,
    Options,
    checked_callers,
    checked_flag,
    checked_name,
    seconds,
    user_agent,
)
from langchain_kv.places.schemes import parse_url
from langchain_kv.values.secret import Secret, SecretSource, SecretText, TokenProvider, checked_token, exact, masked

__all__ = ["Caller", "Token", "place_of", "resolve"]

Token = str | TokenProvider | Callable[[], str | None] | SecretText | None
"""What may be given as a token: the text, an object that has it (``get_token()``, or pydantic's ``SecretStr``), or a
function that returns it."""

_ENVIRONMENTS: Final = ("prod", "dev", "test", "dse", "hcd", "cassandra", "other")


def place_of(url: str | Place | None) -> Place:
    """Return the place that a URL names, or a place itself.

    Args:
        url: see ``parse_url``; None takes ``LCKV_URL``, then ``ASTRA_DB_API_ENDPOINT``.

    Raises:
        ConfigError: it is none, and the environment names none.
    """
    if isinstance(url, Place):
        return url
    address = url_of_environment() if url is None else url
    if isinstance(address, str) and not address:
        raise ConfigError(
            "API endpoint for Data API not provided: no URL says where values are kept. Pass api_endpoint= (url= for"
            f" KVStore) or set {URL_VARIABLE} or {ENDPOINT_VARIABLE} to one of:\n{FORMS}"
        )
    return parse_url(address)


def resolve(
    collection: str,
    place: Place,
    *,
    token: Token | None = None,
    namespace: str | None = None,
    keyspace: str | None = None,
    environment: str | None = None,
    ext_callers: Sequence[Caller] | None = None,
    component: str | None = "langchain_store",
    api_options: object = None,
    request_timeout_s: float | None = None,
    deadline_s: float | None = None,
    wake_timeout_s: float | None = None,
    namespaced: bool = False,
    atomic: bool = False,
) -> BackendOptions:
    """Return what arguments and environment variables ask of a place together; arguments win.

    Whatever the place, every argument is looked at: what works on the laptop works elsewhere.

    Args:
        collection: 1 to 48 ASCII letters, digits and underscores.
        place: where values live.
        token: see ``Token``; what is no text is asked anew for each operation. None takes the variable that the place
            names, ``ASTRA_DB_APPLICATION_TOKEN`` for a Data API.
        namespace: the keyspace, by its older name.
        keyspace: the keyspace; None takes ``ASTRA_DB_KEYSPACE``, then ``default_keyspace``. That of the place wins.
        environment: ``prod``, ``dev``, ``test`` (Astra DB), ``hcd``, ``dse``, ``cassandra`` or ``other``; None: by URL.
        ext_callers: names, or (name, version) pairs, that go first in the User-Agent.
        component: the name of the store's kind in the User-Agent; None for who is no store of LangChain's.
        api_options: an astrapy ``APIOptions`` (or anything with its attributes), of which timeouts, token, environment,
            callers, headers, the certificate file and the API path are read.
        request_timeout_s: seconds for one request; wins over ``api_options``.
        deadline_s: seconds that an operation goes on trying without any success; wins over ``api_options``.
        wake_timeout_s: seconds that a hibernated Astra database is waited for, in place of ``deadline_s``.
        namespaced: see ``BackendOptions``.
        atomic: see ``BackendOptions``.

    Raises:
        ConfigError: names the argument and what to give.
    """
    token = masked(token)
    options = Options(api_options)
    source = _token_source(options.token if token is None else token)
    if token is None and options.token is None and place.token_variable:
        source = _token_source(token_of_environment(place.token_variable))
    return BackendOptions(
        checked_name("collection name", collection),
        _keyspace(place, namespace, keyspace),
        token=source,
        environment=_environment(environment if environment is not None else options.environment),
        path_prefix=options.path_prefix,
        user_agent=user_agent([*checked_callers(ext_callers), *options.callers], component),
        headers=options.headers,
        ca_file=options.ca_file,
        request_timeout_s=seconds("request_timeout_s", request_timeout_s, options.request_timeout_s)
        or limits.REQUEST_TIMEOUT_S,
        deadline_s=seconds("deadline_s", deadline_s, options.deadline_s) or limits.DEADLINE_S,
        wake_timeout_s=seconds("wake_timeout_s", wake_timeout_s) or limits.WAKE_TIMEOUT_S,
        namespaced=checked_flag("namespaced", namespaced),
        atomic=checked_flag("atomic", atomic),
    )


def _keyspace(place: Place, namespace: str | None, keyspace: str | None) -> str:
    names = {checked_name("keyspace name", name) for name in (keyspace, namespace) if name is not None}
    if len(names) > 1:
        raise ConfigError(
            f"namespace={namespace!r:.80} and keyspace={keyspace!r:.80} are two names of one thing: give one."
        )
    if place.keyspace:
        return place.keyspace
    return names.pop() if names else checked_name("keyspace name", keyspace_of_environment())


def _environment(given: str | None) -> str | None:
    if given is None:
        return None
    name = exact(given).lower() if isinstance(given, str) else ""
    if name not in _ENVIRONMENTS:
        raise ConfigError(f"environment={given!r:.80} is not known: it is one of {', '.join(_ENVIRONMENTS)}.")
    return name


def _token_source(given: Any) -> TokenSource:
    token: Secret | SecretSource | None = checked_token(given)
    if isinstance(token, SecretSource) and not token.has_tokens:
        raise ConfigError(
            f"token must be a string, an object with get_token(), or a function that returns it; got {token.kind}."
        )
    return token
