"""What is done to a file as a whole: a copy of it, and back; its space given back; a look whether it is whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_kv.errors import ConfigError
from langchain_kv.places.base import BackendOptions, Place
from langchain_kv.places.files import FilePlace
from langchain_kv.runtime.forks import importing

if TYPE_CHECKING:
    from langchain_kv.engines.sqlite.engine import SQLiteEngine

__all__ = ["back_up", "compact", "look_before_backup", "look_before_restore", "problems", "restore"]


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
    found = _file(place, "backed up")
    engine = _engine(found.path, read_only=found.read_only)
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
    path = _file(place, "restored").path
    engine = _engine(file)
    try:
        engine.restore_to(path, replace=replace)
    finally:
        engine.close()


def look_before_backup(place: Place, file: str, *, replace: bool = False) -> None:
    """Refuse what ``back_up`` would, as far as that can be seen before anything is read or made."""
    with importing.lock:
        from langchain_kv.engines.sqlite.backup import require_place
        from langchain_kv.engines.sqlite.file import recognise

    path = _file(place, "backed up").path
    recognise(path)
    require_place(path, os.path.abspath(file), replace)


def look_before_restore(file: str, place: Place, *, replace: bool = False) -> None:
    """Refuse what ``restore`` would, as far as that can be seen before anything is read or made."""
    with importing.lock:
        from langchain_kv.engines.sqlite.backup import require_replaceable
        from langchain_kv.engines.sqlite.file import recognise

    path = _file(place, "restored").path
    source = os.path.abspath(file)
    recognise(source)
    require_replaceable(source, os.path.realpath(path), replace)


def compact(place: FilePlace, options: BackendOptions) -> tuple[int, int]:
    """Give the space back that a file does not use, while others use it: readers go on, writers wait.

    It takes as much room again for the time being, beside the file and in the directory for temporary files.

    Returns:
        The bytes of the file, and of what stands beside it, before and after.

    Raises:
        EngineError: it could not be done; the values are as they were.
    """
    with importing.lock:
        from langchain_kv.engines.sqlite import care

    def size(facts: dict[str, Any]) -> int:
        return int(facts["file_bytes"]) + int(facts["wal_bytes"])

    with place.sqlite_for(options) as engine:
        before = engine.look(lambda connection: care.facts(connection, place.path))
        engine.rewrite(care.compact)
        after = engine.look(lambda connection: care.facts(connection, place.path))
    return size(before), size(after)


def problems(place: FilePlace, options: BackendOptions) -> Sequence[str]:
    """Return what is wrong with the file's structure, as SQLite says it; nothing where it is whole."""
    with importing.lock:
        from langchain_kv.engines.sqlite import care

    with place.sqlite_for(options) as engine:
        return engine.look(care.problems)


def _file(place: Place, what: str) -> FilePlace:
    if not isinstance(place, FilePlace):
        name = place.shown.partition(":")[0]
        raise ConfigError(f"Only a file can be {what}: give sqlite:PATH, not the URL of a {name} target.")
    return place


def _engine(path: str, *, read_only: bool = False) -> SQLiteEngine:
    with importing.lock:
        from langchain_kv.engines.sqlite.engine import SQLiteEngine

    return SQLiteEngine(path, read_only=read_only)
