"""Encryption of what is stored: AES-GCM, several keys, each record bound to its place.

The form of an encrypted record, whose kind is BYTES::

    byte 0        1, the version of this form
    byte 1        length n of the key's id, 1 to 255
    next n        the key's id, UTF-8
    next 12       nonce, random
    the rest      AES-GCM of (one byte: 0 JSON, 1 TEXT, 2 BYTES; then the payload), with its tag of 16 bytes

    associated data: all of the above before the nonce, then, each after its length as 4 bytes (big-endian), the
    collection's name and the record's key, both UTF-8

So a record that was changed, cut, moved to another key or collection, or encrypted with a key that is not given, is
refused; a record in plain text is refused, too. Keys and moments of expiry stay readable: the place where values are
needs them. Whoever can write there can still remove a record, put back an earlier one of the same key, or change when
it expires, which is not bound: a store that refreshes it does so without the value.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from msgspec.structs import replace

from langchain_kv.backends.base import Damaged, Found, Kind, Record, Stored
from langchain_kv.backends.wrappers import Wrapper
from langchain_kv.errors import ConfigError, UnsupportedError
from langchain_kv.runtime.forks import importing
from langchain_kv.values.codecs import UndecodableError, bytes_from_text
from langchain_kv.values.keys import type_name
from langchain_kv.values.lenient import parse_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from langchain_kv.backends.base import Backend

__all__ = ["Encrypted", "Encryption"]

_VERSION: Final = 1
_NONCE_BYTES: Final = 12
_KINDS: Final = (Kind.JSON, Kind.TEXT, Kind.BYTES, Kind.BODY_BLOB)
NOT_ENCRYPTED: Final = Damaged("it is not encrypted, or by a later version: it is not trusted")


class Encryption:
    """The keys that values are encrypted with.

    Example:
        >>> encryption = Encryption({"2026": bytes(32)})

    Args:
        keys: AES keys of 16, 24 or 32 random bytes, by an id of 1 to 255 bytes that is stored with each value.
        primary: the id of the key that new values are encrypted with; None: the first. Values of the other keys stay
            readable, and take the primary key when they are written again.

    Raises:
        ConfigError: no key, an id or a key that is none of these, or an unknown ``primary``.
    """

    def __init__(self, keys: Mapping[str, bytes], *, primary: str | None = None) -> None:
        try:
            with importing.lock:
                from cryptography.exceptions import InvalidTag
                from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise ConfigError("Encryption needs cryptography: pip install 'langchain-kv[encryption]'.") from None
        self._invalid_tag = InvalidTag
        self._ciphers: dict[str, AESGCM] = {}
        for number, (name, key) in enumerate(keys.items(), 1):
            if not isinstance(name, str) or not 1 <= len(name.encode()) <= 255:
                raise ConfigError("The id of an encryption key must be a text of 1 to 255 bytes of UTF-8.")
            if not isinstance(key, bytes) or len(key) not in (16, 24, 32):
                # Not what was given as its id: where the two were mixed up, that is the key.
                got = f"{len(key):,}" if isinstance(key, bytes) else type_name(key)
                raise ConfigError(
                    f"Encryption key {number:,} of those given must be 16, 24 or 32 bytes, got {got}: os.urandom(32)"
                    " makes one. Keys are given by their ids: {'name': key}."
                )
            self._ciphers[name] = AESGCM(key)
        if not self._ciphers:
            raise ConfigError('Encryption needs a key: Encryption({"name": os.urandom(32)}).')
        self.primary = next(iter(keys)) if primary is None else primary
        if not isinstance(self.primary, str) or self.primary not in self._ciphers:
            # Not what was given, which may be a key.
            ids = ", ".join(f"{name!r:.80}" for name in self._ciphers)
            raise ConfigError(f"primary ({type_name(primary)}) is not the id of one of the keys: give one of {ids}.")

    def __repr__(self) -> str:
        return f"Encryption({', '.join(self._ciphers)})"  # never the keys

    def __reduce__(self) -> NoReturn:
        raise UnsupportedError(
            "An Encryption is not pickled, nor is a store that has one, for the keys would go along: make the store"
            " where it is used."
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Encryption:
        return self  # nothing in it changes

    def _seal(self, plain: bytes, bound: bytes) -> bytes:
        """Return what keeps bytes that are bound to others: head, nonce, and what AES-GCM makes of them."""
        name = self.primary.encode()
        head = bytes((_VERSION, len(name))) + name
        nonce = os.urandom(_NONCE_BYTES)
        return head + nonce + self._ciphers[self.primary].encrypt(nonce, plain, head + bound)

    def _unseal(self, sealed: bytes, bound: bytes) -> bytes | Damaged:
        """Return what ``_seal`` was given, or why there is none."""
        if len(sealed) < 2 or sealed[0] != _VERSION:
            return NOT_ENCRYPTED
        end = 2 + sealed[1]
        head, nonce = sealed[:end], sealed[end : end + _NONCE_BYTES]
        name = head[2:].decode(errors="replace")
        cipher = self._ciphers.get(name)
        if cipher is None:
            return Damaged(f"it is encrypted with the key {name!r:.80}, which is not given")
        try:
            return cipher.decrypt(nonce, sealed[end + _NONCE_BYTES :], head + bound)
        except (self._invalid_tag, ValueError):
            return Damaged("it was changed, cut or moved, or encrypted with another key of the same id")


class Encrypted(Wrapper):
    """Encrypts what goes to a backend.

    Args:
        inner: the backend below.
        encryption: the keys.
        collection: the collection's full name, to which each record is bound.
    """

    def __init__(self, inner: Backend, encryption: Encryption, collection: str) -> None:
        super().__init__(inner)
        self._encryption = encryption
        self._collection = _counted(collection)

    keeps_bytes = True  # the kind is sealed with the value

    def inwards(self, record: Record) -> Record:
        plain = bytes((_KINDS.index(record.kind),)) + record.payload
        sealed = self._encryption._seal(plain, self._collection + _counted(record.key))
        return replace(record, payload=sealed, kind=Kind.BYTES)

    def outwards(self, key: str, found: Found) -> Stored | None:
        sealed = found.value
        if isinstance(sealed, str):  # where documents are kept, bytes are base64 text
            with suppress(UndecodableError):
                sealed = bytes_from_text(sealed)
        if not isinstance(sealed, bytes):
            return NOT_ENCRYPTED
        plain = self._encryption._unseal(sealed, self._collection + _counted(key))
        return plain if isinstance(plain, Damaged) else _opened(plain, found.expires_at_ms)


def _counted(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">I", len(data)) + data


def _opened(plain: bytes, expires_at_ms: int | None) -> Found:
    kind, payload = _KINDS[plain[0]], plain[1:]
    return Found(payload if kind is Kind.BYTES else parse_json(payload), kind, expires_at_ms)
