"""How a store is opened, closed, copied and narrowed to a namespace."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from langchain_kv.backends.wrappers import Counted, Prefixed, Statistics
from langchain_kv.errors import ConfigError, InvalidKeyError, StoreClosedError, UnsupportedError, UsageError
from langchain_kv.places.options import checked_flag
from langchain_kv.stores.collection import CollectionHandle
from langchain_kv.stores.expiry import checked_ttl
from langchain_kv.stores.setup import Setup, SetupMode
from langchain_kv.values.keys import KeyRule, type_name
from langchain_kv.values.namespaces import namespace_prefix

if TYPE_CHECKING:
    from langchain_kv.backends.base import Backend
    from langchain_kv.backends.encryption import Encryption
    from langchain_kv.places.base import BackendOptions, Place

__all__ = ["OpenedStore", "Options"]


class Options(NamedTuple):
    """What a store does beside keeping values.

    Attributes:
        ttl_s: seconds after which its values expire; None for ever.
        refresh_on_read: whether reading a value starts them anew.
        encryption: the keys to encrypt values with, or None.
        statistics: whether it counts what it does.
        labels: the namespace.
    """

    ttl_s: float | None = None
    refresh_on_read: bool = False
    encryption: Encryption | None = None
    statistics: bool = False
    labels: tuple[str, ...] = ()

    def checked(self) -> Options:
        """Return the same.

        Raises:
            UsageError: one of them is wrong.
        """
        checked_ttl(self.ttl_s)
        for name in ("refresh_on_read", "statistics"):
            checked_flag(name, getattr(self, name))
        if self.refresh_on_read and self.ttl_s is None:
            raise ConfigError("refresh_on_read=True needs ttl_s: how long a value lives from each reading on.")
        if self.encryption is not None:
            from langchain_kv.backends.encryption import Encryption

            if not isinstance(self.encryption, Encryption):
                raise ConfigError(
                    f"encryption must be an Encryption, got {type_name(self.encryption)}: give"
                    " Encryption({'name': key})."
                )
        return self


class _Connection:
    """What a store shares with those of its namespaces."""

    def __init__(self, backend: Backend, setup: Setup) -> None:
        self.backend = backend
        self.setup = setup
        self.is_closed = False


class OpenedStore:
    """A store that is open: on a connection of its own, or in a namespace of another store, on that one's."""

    def _start(
        self, place: Place, backend_options: BackendOptions, options: Options, setup_mode: Any, *, pre_delete: bool
    ) -> None:
        options = options.checked()
        mode = SetupMode.of(setup_mode)
        checked_flag("pre_delete_collection", pre_delete)
        self._place = place
        self._backend_options = backend_options
        self._options = options
        self._open(mode, pre_delete=pre_delete)

    def _open(self, mode: SetupMode, *, pre_delete: bool = False) -> None:
        """Open a connection of the store's own."""
        backend = self._place.open(self._backend_options)
        try:
            options = self._options
            if options.refresh_on_read and not backend.can_update:
                raise UnsupportedError(
                    f"refresh_on_read needs a target that changes a value in one step with reading it, which"
                    f" {backend!r} cannot, nor a file that is only read: another client's value might be lost. Write"
                    " values again in time instead, with ttl_s, or only read them, without it; over HTTP, a collection"
                    " made with atomic=True has it, too."
                )
            if options.encryption is not None:
                from langchain_kv.backends.encryption import Encrypted

                backend = Encrypted(backend, options.encryption, self.collection.full_name)
            self._use(_Connection(backend, Setup(backend, mode, pre_delete=pre_delete)), owned=True)
        except BaseException:
            backend.close()
            raise

    def _use(self, connection: _Connection, *, owned: bool) -> None:
        self._closed = False
        self._owned = owned
        self._connection = connection
        self._setup = connection.setup
        self._backend = connection.backend
        if self._options.labels:
            self._backend = Prefixed(self._backend, namespace_prefix(self._options.labels))
        self._counted = Counted(self._backend) if self._options.statistics else None
        if self._counted is not None:
            self._backend = self._counted
        self._key_rule = KeyRule(self._backend.key_max_bytes, self._backend.allows_empty_key)

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def collection(self) -> CollectionHandle:
        """The collection's names."""
        return CollectionHandle(self._backend_options.collection, self._backend_options.keyspace)

    @property
    def async_collection(self) -> CollectionHandle:
        """The collection's names."""
        return self.collection

    def __repr__(self) -> str:
        if "_backend_options" not in self.__dict__:  # in the traceback of a constructor that failed
            return f"<{type(self).__name__}, not made>"
        labels = f", namespace={self._options.labels!r}" if self._options.labels else ""
        return f"{type(self).__name__}({self.collection.full_name!r}, {self._place.shown!r}{labels})"

    def statistics(self) -> Statistics:
        """Return what this store has done since it was made; a store of a namespace counts for itself.

        Raises:
            UsageError: it was not made with ``statistics=True``.
        """
        if self._counted is None:
            raise UsageError("This store does not count: make it with statistics=True.")
        return self._counted.statistics

    def namespace(self, *labels: str) -> Self:
        """Return a store of the same class that sees the keys of one namespace only, by their own names.

        It uses the connection of the store that was made with a URL: closing it closes nothing of that one's, and it
        ends with that one. The namespaces of a store of a namespace are below that one. A store without a namespace
        sees all the keys of the collection, in the form in which they are kept.

        Args:
            labels: what names the namespace, from the outermost; any text that is not empty. They take from the length
                that a key may have.

        Raises:
            InvalidKeyError: a label is none, or they leave no room for a key.
        """
        if not labels:
            raise InvalidKeyError("A namespace needs a label: store.namespace('users').")
        names = (*self._options.labels, *labels)
        taken = len(namespace_prefix(names).encode())
        if taken >= self._connection.backend.key_max_bytes:
            raise InvalidKeyError(
                f"The labels of the namespace take {taken:,} bytes of UTF-8, and a key with them may take"
                f" {self._connection.backend.key_max_bytes:,}: use shorter labels."
            )
        self._check_open()
        exact_names = tuple(str.__str__(name) for name in names)
        result = object.__new__(type(self))
        result.__dict__.update(self.__dict__)  # a subclass's own attributes are shared
        result._options = self._options._replace(labels=exact_names)
        result._use(self._connection, owned=False)
        return result

    # -- its end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release what only this store uses. Idempotent.

        A later use raises StoreClosedError, as does one of the stores of its namespaces.
        """
        self._closed = True
        if self._owned:
            self._connection.is_closed = True
            self._connection.backend.close()

    async def aclose(self) -> None:
        """As ``close``."""
        self._closed = True
        if self._owned:
            self._connection.is_closed = True
            await self._connection.backend.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self._abegin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # -- copies -------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in _OPENED}
        state["_place"] = self._place.without_secrets()
        state["_backend_options"] = self._backend_options.without_secrets()
        state["_mode"] = self._copied_mode()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        mode = state.pop("_mode")
        self.__dict__.update(state)
        self._place = self._place.with_secrets()
        self._backend_options = self._backend_options.with_secrets(self._place.token_variable)
        self._reopen(mode)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Unlike a pickle, a copy stays in this process, and so keeps the token.
        result = object.__new__(type(self))
        memo[id(self)] = result
        own = {name: value for name, value in self.__dict__.items() if name not in (*_OPENED, *_SHARED)}
        result.__dict__.update(copy.deepcopy(own, memo))
        result._place = self._place
        result._backend_options = self._backend_options
        result._options = self._options
        result._closed = self._closed or self._connection.is_closed
        result._reopen(self._copied_mode())
        return result

    def __copy__(self) -> Self:
        # A shallow copy would share, and close, the backend of its original.
        return copy.deepcopy(self)

    def _copied_mode(self) -> SetupMode:
        return SetupMode.OFF if self._setup.done else SetupMode.ASYNC

    def _reopen(self, mode: SetupMode) -> None:
        closed = self._closed
        self._open(mode)
        if closed:
            self.close()

    # -- before each call ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._check_open()
        if not self._setup.done:
            self._setup.wait()

    async def _abegin(self) -> None:
        self._check_open()
        if not self._setup.done:
            await self._setup.await_()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("This store was closed: make a new one.")
        if self._connection.is_closed:
            raise StoreClosedError("The store of which this one is a namespace was closed: make a new one.")


_OPENED = ("_backend", "_connection", "_counted", "_key_rule", "_setup")
"""What a copy has anew."""

_SHARED = ("_place", "_backend_options", "_options")
"""What a copy in this process has in common with its original."""
