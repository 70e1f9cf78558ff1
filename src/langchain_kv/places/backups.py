"""From a file to a copy of it, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_kv.errors import ConfigError
from langchain_kv.places.base import Place
from langchain_kv.places.files import FilePlace
from langchain_kv.runtime.forks import importing

if TYPE_CHECKING:
    from langchain_kv.engines.sqlite.engine import SQLiteEngine

__all__ = ["back_up", "restore"]


def back_up(place: Place, file: str, *, replace: bool = False) -> None:
    """Copy the database of a file, as of one moment, while others write to it.

    Args:
        place: the database.
        file: the path of the copy; a database itself from then on.
        replace: whether to take the place of a file of that name.

    Raises:
        ConfigError: the place is no file.
        EngineError: the copy could not be made; nothing is left behind.
    """
    if not isinstance(place, FilePlace):
        raise ConfigError(f"Only a file can be backed up: give sqlite:PATH, not the URL of a {_name(place)} target.")
    engine = _engine(place.path, read_only=place.read_only)
    try:
        engine.backup(file, replace=replace)
    finally:
        engine.close()


def restore(file: str, place: Place, *, replace: bool = False) -> None:
    """Put a copy of a backup in the place of a file's database, while others use it.

    Args:
        file: the path of the backup, which stays as it is.
        place: the database; need not exist.
        replace: whether to take also the place of what is not recognised as a database of this package.

    Raises:
        ConfigError: the place is no file.
        EngineError: it could not be done; all is as it was.
    """
    if not isinstance(place, FilePlace):
        raise ConfigError(f"Only a file can be restored: give sqlite:PATH, not the URL of a {_name(place)} target.")
    engine = _engine(file)
    try:
        engine.restore_to(place.path, replace=replace)
    finally:
        engine.close()


def _name(place: Place) -> str:
    return place.shown.partition(":")[0]


def _engine(path: str, *, read_only: bool = False) -> SQLiteEngine:
    with importing.lock:
        from langchain_kv.engines.sqlite.engine import SQLiteEngine

    return SQLiteEngine(path, read_only=read_only)
