"""From the options of a command to the backend that they name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from langchain_kv.backends.base import Backend
from langchain_kv.backends.wrappers import Prefixed
from langchain_kv.cli.parsing import Arguments
from langchain_kv.cli.secrets import read_secret
from langchain_kv.errors import (
    ConfigError,
    EngineError,
    UnknownCollectionError,
    UnknownKeyspaceError,
    UnsupportedError,
)
from langchain_kv.limits import REQUEST_TIMEOUT_S
from langchain_kv.places.arguments import resolve
from langchain_kv.places.base import BackendOptions, Place
from langchain_kv.places.files import FilePlace
from langchain_kv.places.memory import MemoryPlace
from langchain_kv.places.schemes import parse_url
from langchain_kv.runtime.clock import now_ms
from langchain_kv.values.keys import KeyRule
from langchain_kv.values.namespaces import namespace_prefix

if TYPE_CHECKING:
    from langchain_kv.engines.sqlite.care import Figures

__all__ = ["Target", "expired_in", "figures_of", "key_rule", "place_of", "require_file", "target_of", "url_of"]

_ANY_COLLECTION = "collection"  # where no collection is meant, and a place's options need the name of one


class Target(NamedTuple):
    """A collection of a place, or a namespace in it.

    Attributes:
        place: where it is.
        options: what is asked of the place.
        labels: of the namespace; none for the whole collection.
    """

    place: Place
    options: BackendOptions
    labels: tuple[str, ...] = ()

    @classmethod
    def named(
        cls,
        url: str,
        collection: str | None,
        *,
        keyspace: str | None = None,
        token: str | None = None,
        timeout_s: float | None = None,
        labels: Sequence[str] = (),
    ) -> Target:
        """Return what options name; nothing is opened.

        Args:
            url: of the place.
            collection: its name; None where none is meant.
            keyspace: None for the environment's.
            token: ``@FILE``; None for the environment's.
            timeout_s: how long to go on without any success; None for the usual time.
            labels: of the namespace, from the outermost.

        Raises:
            ConfigError: one of them is wrong.
            InvalidKeyError: a label is none.
        """
        place = place_of(url)
        namespace_prefix(labels)
        options = resolve(
            _ANY_COLLECTION if collection is None else collection,
            place,
            token=None if token is None else read_secret("--token", token),
            keyspace=keyspace,
            component=None,
            # No request is waited for longer than all of them.
            request_timeout_s=None if timeout_s is None else min(timeout_s, REQUEST_TIMEOUT_S),
            deadline_s=timeout_s,
        )
        return cls(place, options, tuple(labels))

    def of(self, collection: str) -> Target:
        """Return another collection of the same place and keyspace."""
        return self._replace(options=replace(self.options, collection=collection))

    @contextmanager
    def opened(self, *, creates: bool = False) -> Iterator[Backend]:
        """Open the backend, for as long as the block runs.

        Args:
            creates: whether the collection, and the file, is made where it is missing.

        Raises:
            StoreError: what the backend raises; where its file is missing, it says that.
        """
        backend = self.place.open(self.options)
        try:
            if creates:
                backend.open()
            yield Prefixed(backend, namespace_prefix(self.labels)) if self.labels else backend
        except (UnknownCollectionError, UnknownKeyspaceError):
            require_file(self.place)
            raise
        finally:
            backend.close()


def place_of(url: str) -> Place:
    """Return the place of a URL, or of one that a file holds, ``@FILE``: it may have a password in it.

    Raises:
        ConfigError: it is none, or this process's memory, which would be gone with it.
    """
    place = parse_url(url_of(url))
    if isinstance(place, MemoryPlace):
        raise ConfigError("memory: lives in one process and would be gone with this one: give sqlite:PATH.")
    return place


def url_of(given: str) -> str:
    """Return a URL that is given, or that the file holds that is named in its place, ``@FILE``.

    Raises:
        UsageError: the file cannot be read or holds none.
    """
    return read_secret("--db", given, is_ascii=False) if given.startswith("@") else given


def target_of(arguments: Arguments) -> Target:
    """Return what the options of ``options.STORE`` or ``options.PLACE`` name; nothing is opened."""
    return Target.named(
        arguments.db,
        getattr(arguments, "collection", None),
        keyspace=arguments.keyspace,
        token=arguments.token,
        timeout_s=arguments.timeout,
        labels=getattr(arguments, "namespace", ()),
    )


def require_file(place: Place) -> None:
    """Refuse the place of a file that is not there.

    Raises:
        EngineError: it is not.
    """
    if isinstance(place, FilePlace) and not os.path.lexists(place.path):
        raise EngineError(f"There is no file {place.path}: check --db, or have lckv set make it.")


def key_rule(backend: Backend) -> KeyRule:
    """Return which keys a backend takes."""
    return KeyRule(backend.key_max_bytes, backend.allows_empty_key)


def figures_of(target: Target) -> list[Figures]:
    """Return what each collection of a file holds, of all keyspaces.

    Raises:
        UnsupportedError: the target is no file.
        EngineError: there is no such file.
    """
    if not isinstance(target.place, FilePlace):
        raise UnsupportedError("Only a file can tell what has expired without removing it: leave out --dry-run.")
    require_file(target.place)
    from langchain_kv.engines.sqlite.care import figures

    with target.place.sqlite_for(target.options) as engine:
        return engine.look(lambda connection: figures(connection, now_ms()))


def expired_in(target: Target) -> int:
    """Return how many keys of a file's collection have expired.

    Raises:
        UnsupportedError: the target is no file.
    """
    name = target.options.keyspace, target.options.collection
    return sum(each.expired for each in figures_of(target) if (each.keyspace, each.name) == name)
