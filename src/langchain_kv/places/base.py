"""A place: what a URL, or an object that the user has, names, and what it opens to."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, Self
from urllib.parse import parse_qsl

from langchain_kv import limits
from langchain_kv.errors import UnknownCollectionError, UnsupportedError, UsageError
from langchain_kv.places.environment import token_left_out, token_of_environment

if TYPE_CHECKING:
    from langchain_kv.backends.base import Backend

__all__ = ["BackendOptions", "Place", "TokenSource", "collections_of_keys", "identity_of_url", "keys_prefix"]

TokenSource = str | Callable[[], str | None] | None
"""The token, something that gives it when asked, or None for no token."""


@dataclass(frozen=True)
class BackendOptions:
    """What a store asks of a place, whatever the place: checked, exact builtins. Token and headers are never shown.

    Attributes:
        collection: the collection's name.
        keyspace: the keyspace's name: that of the place where it names one.
        token: the token, something that gives it when asked, or None for no token.
        environment: which service it is, as the user said, in lower case (``prod``, ``hcd``, ...); None: not said.
        path_prefix: what stands between a Data API's endpoint and ``/v1``, as the user said; None: not said.
        user_agent: the text of the User-Agent header.
        headers: further headers.
        ca_file: the path of a file of certificate authorities to trust, None for the system's.
        request_timeout_s: seconds for one request.
        deadline_s: seconds that an operation goes on trying without any success, or waits for others.
        wake_timeout_s: seconds that a hibernated database is waited for.
        namespaced: whether the documents of a Data API's or a cluster's collection list the namespaces of their keys.
        atomic: whether the documents of a Data API's or a cluster's collection have a version.
        dimension: how many numbers the vectors of a Data API's collection have, where it is made; 0: it has none.
        lacks_token: whether there was a token, which was left out of what was written down.
    """

    collection: str
    keyspace: str
    token: TokenSource = field(default=None, repr=False)
    environment: str | None = None
    path_prefix: str | None = None
    user_agent: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None
    request_timeout_s: float = limits.REQUEST_TIMEOUT_S
    deadline_s: float = limits.DEADLINE_S
    wake_timeout_s: float = limits.WAKE_TIMEOUT_S
    namespaced: bool = False
    atomic: bool = False
    dimension: int = 0
    lacks_token: bool = False

    def without_secrets(self) -> BackendOptions:
        """Return these options as they may be written down: without token and headers."""
        return replace(self, token=None, headers={}, lacks_token=self.lacks_token or self.token is not None)

    def with_secrets(self, token_variable: str) -> BackendOptions:
        """Return these options, which were written down, with the token that the environment names now.

        Args:
            token_variable: see ``Place``.
        """
        if not token_variable:
            return self
        if self.lacks_token:  # looked for at each operation: a store that finds none can still be made
            return replace(self, token=partial(token_left_out, token_variable))
        return replace(self, token=token_of_environment(token_variable))


class Place(ABC):
    """Where values live. ``KVStore`` makes one of a URL, or is given one in the place of a URL.

    A subclass writes ``shown`` and ``open``. It is made without opening or sending anything, and is not changed
    afterwards: several stores may use it, and every copy of a store opens it anew.
    """

    keyspace: str = ""
    """The keyspace that the place itself names, which wins over arguments; empty where it names none."""

    token_variable: ClassVar[str] = ""
    """The variable of the environment that has the token where the user gives none; empty where there is none."""

    @property
    @abstractmethod
    def shown(self) -> str:
        """What a store's repr shows of the place: ``sqlite:/data/kv.db``; never a password."""

    @property
    def url_shown(self) -> str:
        """The URL by which another program reaches the place; of a password it has ``***``. Most show just this."""
        return self.shown

    @property
    def identity(self) -> str:
        """What tells the place from every other of its kind, without a password: ``shown``, where that says it all."""
        return self.shown

    @abstractmethod
    def open(self, options: BackendOptions) -> Backend:
        """Return a new backend for one collection. Nothing is opened or sent before its first use.

        Raises:
            ConfigError: an option contradicts the place.
        """

    def collections(self, options: BackendOptions) -> list[str]:
        """Return the names of the collections in the keyspace of the options, sorted. Their ``collection`` is ignored.

        Raises:
            UnsupportedError: this kind of place does not tell.
        """
        raise UnsupportedError(f"{self.shown} keeps no list of its collections: name the one that is meant.")

    def drop(self, options: BackendOptions) -> None:
        """Remove the collection that the options name, with all in it. A missing one is no error.

        Where a collection is nothing but its keys, as here, these are removed.
        """
        with closing(self.open(options)) as backend, suppress(UnknownCollectionError):
            backend.clear("")

    def facts(self, options: BackendOptions) -> dict[str, object]:
        """Return what is known of the place itself, such as versions and sizes in bytes. It asks the place."""
        return {}

    def without_secrets(self) -> Self:
        """Return this place as it may be pickled: without passwords. A place allows that by overriding this.

        Raises:
            UsageError: it cannot be pickled.
        """
        raise UsageError(
            f"A store on {self.shown} cannot be pickled, because its place ({type(self).__name__}) is not made for it:"
            " make the store anew where it is wanted."
        )

    def with_secrets(self) -> Self:
        """Return this place, which was pickled, with those secrets that the environment names now."""
        return self


def identity_of_url(shown: str, url: str) -> str:
    """Return the identity of a place whose URL has parameters that ``shown`` leaves out, such as ``db=`` and ``host=``.

    They stand in it as a hash, because any of them may be nobody else's business. Those that log in are left out: a
    place stays what it is with another password.
    """
    pairs = sorted(pair for pair in parse_qsl(url.partition("?")[2], True) if not _LOGS_IN.search(pair[0]))
    return f"{shown}?{hashlib.sha256(repr(pairs).encode()).hexdigest()[:16]}" if pairs else shown


_LOGS_IN: Final = re.compile("user|pass|secret|token", re.IGNORECASE)


def keys_prefix(prefix: str | None, options: BackendOptions) -> str:
    """Return the text before every key where collections are kept beside each other: the place's, else the names'.

    Neither a keyspace's name nor a collection's has a point or a slash: no two share keys.
    """
    if prefix is not None:
        return prefix
    keyspace = "" if options.keyspace == limits.DEFAULT_KEYSPACE else f"{options.keyspace}."
    return f"{keyspace}{options.collection}/"


def collections_of_keys(backend: Backend, keyspace: str) -> list[str]:
    """Return the collections of a keyspace whose keys are there, as ``keys_prefix`` writes them, sorted.

    Keys of other programs may look like ours. All keys are listed for it.

    Args:
        backend: over all the keys of the place; closed at the end.
        keyspace: its name.
    """
    found = set()
    with closing(backend), closing(backend.scan("", values=False)) as pages:
        for page in pages:
            for key, _ in page:
                head, has_slash, _ = key.partition("/")
                of_keyspace, _, name = head.rpartition(".")
                if has_slash and (of_keyspace or limits.DEFAULT_KEYSPACE) == keyspace and _NAME.fullmatch(name):
                    found.add(name)
    return sorted(found)


_NAME: Final = re.compile(rf"\w{{1,{limits.NAME_MAX_LENGTH}}}", re.ASCII)
