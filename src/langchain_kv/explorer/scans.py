"""Listings that go on from page to page: the scan itself stays open here, so that no page repeats or skips a key.

A backend promises no order of keys, and has no cursor that outlives a call. So a listing is a scan of the backend that
the server keeps, and the page asks for its next part. Parts are numbered: one that is asked for again, because the
answer was lost, is the same. What is kept is bounded; where its scan was given up, the page begins anew and passes over
the keys that it has.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Final, NamedTuple

from langchain_kv.backends.base import Page
from langchain_kv.engines.base import CollectionName
from langchain_kv.explorer.targets import Backends
from langchain_kv.runtime import threads

__all__ = ["PART_BYTES", "PART_S", "SCANS_MAX", "Part", "ScanGoneError", "Scans"]

SCANS_MAX: Final = 16
"""Scans that are kept open; the one that was asked longest ago makes room."""

IDLE_S: Final = 300.0
"""Seconds after which a scan that nobody asks is given up, by whoever asks for another."""

PART_S: Final = 0.5
"""Seconds after which a part ends with the keys that it has by then."""

PART_BYTES: Final = 256 * 1024
"""Characters of keys with which a part ends."""


class ScanGoneError(Exception):
    """The scan is not kept any more, or never was."""


class Part(NamedTuple):
    """A part of a listing.

    Attributes:
        keys: these.
        cursor: names the scan; None where it has come to its end.
        number: which part this is; the next one is asked for with one more.
    """

    keys: list[str]
    cursor: str | None
    number: int


class _Scan:
    """An open scan. Used by one thread at a time, with its lock."""

    def __init__(self, backends: Backends, name: CollectionName, prefix: str) -> None:
        self.lock = threads.Mutex()
        self.used_s = time.monotonic()
        self.last = Part([], None, 0)
        self.is_given_up = False
        self._stack = ExitStack()
        backend = self._stack.enter_context(backends.using(name))
        self._pages: Iterator[Page] = self._stack.enter_context(closing(backend.scan(prefix, values=False)))

    def go_on(self, cursor: str, limit: int) -> Part:
        """Return the next part; the scan is closed with the last one, and after an error."""
        keys: list[str] = []
        size, began_s = 0, time.monotonic()
        going_on = True
        try:
            while going_on and len(keys) < limit and size < PART_BYTES and time.monotonic() - began_s < PART_S:
                page = next(self._pages, None)
                going_on = page is not None
                keys += [key for key, _ in page or ()]
                size += sum(len(key) for key, _ in page or ())
        except BaseException:
            self.close()
            raise
        if not going_on:
            self.close()
        self.last = Part(keys, cursor if going_on else None, self.last.number + 1)
        return self.last

    def close(self) -> None:
        """Close the backend's scan. Idempotent; the lock is held."""
        self._stack.close()

    def give_up(self) -> None:
        """Close it now, or have whoever is at it do so: nobody waits for a target that does not answer."""
        self.is_given_up = True
        if self.lock.acquire(blocking=False):
            try:
                self.last = self.last._replace(cursor=None)
                self.close()
            finally:
                self.lock.release()


class Scans:
    """The scans that are open.

    Args:
        backends: those that are scanned.
    """

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._lock = threads.Mutex()
        self._scans: OrderedDict[str, _Scan] = OrderedDict()  # the one asked last comes last

    def begin(self, name: CollectionName, prefix: str, limit: int) -> Part:
        """Return the first part of a listing of the keys that start with ``prefix``.

        Args:
            name: the collection.
            prefix: literal.
            limit: the part ends with the page of the backend that makes so many keys.
        """
        scan = _Scan(self._backends, name, prefix)
        cursor = secrets.token_urlsafe(12)
        with scan.lock:
            part = scan.go_on(cursor, limit)
        if part.cursor is not None:
            self._keep(cursor, scan)
        return part

    def go_on(self, cursor: str, number: int, limit: int) -> Part:
        """Return the part of this number: the next one, or once more the one before.

        Raises:
            ScanGoneError: the scan is not there any more, or no such part follows.
        """
        with self._lock:
            scan = self._scans.get(cursor)
            if scan is None:
                raise ScanGoneError
            scan.used_s = time.monotonic()
            self._scans.move_to_end(cursor)
        try:
            with scan.lock:
                if number == scan.last.number:
                    return scan.last
                if number != scan.last.number + 1 or scan.last.cursor is None:
                    raise ScanGoneError
                return scan.go_on(cursor, limit)
        except ScanGoneError:
            raise
        except BaseException:
            self._forget(cursor)
            raise
        finally:
            if scan.is_given_up:
                scan.give_up()

    def close(self) -> None:
        """Give up all scans."""
        with self._lock:
            scans = list(self._scans.values())
            self._scans.clear()
        for scan in scans:
            scan.give_up()

    def _keep(self, cursor: str, scan: _Scan) -> None:
        with self._lock:
            now_s = time.monotonic()
            names = [name for name, each in self._scans.items() if now_s - each.used_s > IDLE_S]
            surplus = list(self._scans)[: max(0, len(self._scans) - len(names) + 1 - SCANS_MAX)]
            given_up = [self._scans.pop(name) for name in dict.fromkeys([*names, *surplus])]
            self._scans[cursor] = scan
        for each in given_up:
            each.give_up()

    def _forget(self, cursor: str) -> None:
        with self._lock:
            self._scans.pop(cursor, None)
