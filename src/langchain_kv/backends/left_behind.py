"""What other programs left, as backends that are only read: values are taken from there, and nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn

from langchain_kv.backends.base import Change, Damaged, Found, Kind, Page, Record, Stored, SyncBackend
from langchain_kv.errors import EngineError, UnsupportedError

__all__ = ["FolderBackend", "ReadOnlyBackend"]

PAGE_BYTES: Final = 1024 * 1024
PAGE_KEYS: Final = 500


class ReadOnlyBackend(SyncBackend):
    """A backend that is only read. A subclass writes ``get_many``, ``scan`` and ``__repr__``.

    It makes nothing when it is opened, and may be opened as often as one likes.
    """

    allows_empty_key = True

    def open(self, *, clear: bool = False) -> None:
        if clear:
            self._refuse()

    def put_many(self, records: Sequence[Record]) -> None:
        self._refuse()

    def delete_many(self, keys: Sequence[str]) -> None:
        self._refuse()

    def update(self, key: str, change: Change) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UnsupportedError(f"{self!r} is only read: copy its values to a target of lckv, and change them there.")


class FolderBackend(ReadOnlyBackend):
    """The files of a ``LocalFileStore`` of langchain-classic: the path of each below the folder is the key.

    Args:
        folder: its path.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"The folder {self._folder}"

    def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        return [self._read(key) for key in keys]

    def scan(self, prefix: str, *, values: bool) -> Generator[Page]:
        page: Page = []
        left = PAGE_BYTES
        for key in self._keys(self._folder):
            if not key.startswith(prefix):
                continue
            stored = self._read(key) if values else None
            if values and stored is None:
                continue  # it was removed meanwhile
            page.append((key, stored))
            left -= len(stored.value) if isinstance(stored, Found) else 0
            if left <= 0 or len(page) == PAGE_KEYS:
                yield page
                page, left = [], PAGE_BYTES
        yield page

    def _keys(self, folder: str) -> Iterator[str]:
        """Yield the keys of the files below a folder. Links to files count, links to folders are not followed."""
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield from self._keys(entry.path)
                    elif entry.is_file():
                        yield os.path.relpath(entry.path, self._folder).replace(os.sep, "/")
        except OSError as error:
            raise EngineError(f"Cannot list {folder}: {error.strerror}.") from None

    def _read(self, key: str) -> Stored | None:
        path = Path(self._folder, key)
        try:
            is_below = path.parent.resolve().is_relative_to(Path(self._folder).resolve())
            return Found(path.read_bytes(), Kind.BYTES) if key and is_below else None
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):
            return None
        except OSError as error:
            return Damaged(f"its file cannot be read: {error.strerror}")
