"""What those stores of langchain_community have in common that keep values as they are, in one space of keys."""

from __future__ import annotations

from typing import Any, TypeVar

from langchain_kv.errors import InvalidValueTypeError
from langchain_kv.places.base import BackendOptions, Place
from langchain_kv.stores.base import KVBaseStore, KVByteStore
from langchain_kv.stores.life import Options
from langchain_kv.stores.setup import SetupMode
from langchain_kv.values.codecs import UndecodableError
from langchain_kv.values.keys import type_name

__all__ = ["RawByteStore", "RawStore", "checked_seconds", "prefix_of"]

V = TypeVar("V")


class RawStore(KVBaseStore[V]):
    """A store whose keys have a text before them. A subclass has the constructor.

    Attributes:
        namespace: the text before the key and a slash, or None; a text, and no method as of other stores.
        ttl: seconds after which what is written expires, or None.
    """

    namespace: str | None  # type: ignore[assignment]
    ttl: int | None

    def _start_raw(self, place: Place, options: BackendOptions, ttl: int | None, namespace: str | None) -> None:
        self.namespace = namespace
        self.ttl = ttl
        self._start(place, options, Options(ttl_s=ttl), SetupMode.OFF, pre_delete=False)

    def __repr__(self) -> str:
        if "_place" not in self.__dict__:  # in the traceback of a constructor that failed
            return super().__repr__()
        return f"{type(self).__name__}({self._place.shown!r}, namespace={self.namespace!r})"


class RawByteStore(RawStore[bytes], KVByteStore):
    """Such a store of bytes."""

    def encode_value(self, value: bytes | None) -> Any:
        """Return the bytes; None, of which other programs would read something, is refused."""
        if value is None:
            raise InvalidValueTypeError("The value must be bytes, got None: delete the key instead.")
        return super().encode_value(value)

    def decode_value(self, value: Any) -> bytes | None:
        """Return the bytes."""
        if not isinstance(value, bytes):
            raise UndecodableError("it is JSON, not bytes: read it with KVStore")
        return value


def checked_seconds(ttl: object) -> int | None:
    """Return the seconds.

    Raises:
        InvalidValueTypeError: they are no integer.
    """
    if (ttl is not None and not isinstance(ttl, int)) or isinstance(ttl, bool):
        raise InvalidValueTypeError(f"Expected int or None, got {type_name(ttl)} instead: ttl is in seconds.")
    return ttl


def prefix_of(namespace: str | None) -> str:
    """Return the text before every key."""
    return f"{namespace}/" if namespace else ""
