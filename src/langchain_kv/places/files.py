"""``sqlite:``, a file."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, cast
from urllib.parse import parse_qsl, unquote

from langchain_kv import limits
from langchain_kv.errors import ConfigError
from langchain_kv.places.base import BackendOptions
from langchain_kv.places.embedded import EmbeddedPlace
from langchain_kv.runtime.forks import importing

if TYPE_CHECKING:
    from langchain_kv.engines.base import Engine
    from langchain_kv.engines.sqlite.engine import SQLiteEngine

__all__ = ["FilePlace", "file_url", "file_url_of_others", "parse_file_url"]


@dataclass(frozen=True)
class FilePlace(EmbeddedPlace):
    """A file.

    Attributes:
        path: its absolute path.
        synchronous: whether each commit reaches the disk before it is acknowledged (``full``) or may be lost by a power
            cut, never by a crash of the process (``normal``).
        read_only: whether nothing is written and no file is made.
        wait_s: the seconds that a call waits for other processes and programs; no part of the URL.
    """

    path: str
    synchronous: Literal["full", "normal"] = "full"
    read_only: bool = False
    wait_s: float = limits.FILE_WAIT_S

    @property
    def shown(self) -> str:
        """The scheme and the path."""
        return f"sqlite:{self.path}"

    @property
    def url_shown(self) -> str:
        """The URL of the file."""
        return file_url(self.path)

    def make_engine(self) -> Engine:
        """Return an engine for the file."""
        with importing.lock:
            from langchain_kv.engines.sqlite.engine import SQLiteEngine

        return SQLiteEngine(self.path, synchronous=self.synchronous, read_only=self.read_only, wait_s=self.wait_s)

    def with_options(self, options: BackendOptions) -> FilePlace:
        """Return this place with the store's patience."""
        return replace(self, wait_s=options.deadline_s)

    def sharing_key(self) -> Hashable:
        """Return this place, and where links lead now: they may have changed since another user's engine was made."""
        return self, os.path.realpath(self.path)

    def facts(self, options: BackendOptions) -> dict[str, object]:
        """Return sizes, versions, and how many pages are free: see ``engines.sqlite.care.facts``."""
        with importing.lock:
            from langchain_kv.engines.sqlite.care import facts

        with self.sqlite_for(options) as engine:
            return engine.look(lambda connection: facts(connection, self.path))

    @contextmanager
    def sqlite_for(self, options: BackendOptions) -> Iterator[SQLiteEngine]:
        """As ``engine_for``, for what only this engine has."""
        with self.engine_for(options) as engine:
            yield cast("SQLiteEngine", engine)

    def without_secrets(self) -> FilePlace:
        """Return this place."""
        return self


def file_url(path: str | bytes) -> str:
    """Return the URL of a path."""
    return "sqlite:" + os.fsdecode(path).replace("%", "%25").replace("?", "%3F")


def file_url_of_others(rest: str) -> tuple[str, str]:
    """Return what ``sqlite:`` with slashes means in SQLAlchemy, and in words where that is."""
    path = rest.removeprefix("//").removeprefix("/")
    if path in ("", ":memory:"):
        return "memory:", "the memory of this process"
    if path.startswith("/") or path[1:3] in (":/", ":\\"):
        return f"sqlite:{path}", "an absolute path"
    return f"sqlite:{path}", _RELATIVE


_RELATIVE: Final = "from the working directory on"


def parse_file_url(url: str) -> FilePlace:
    """Return the file that ``sqlite:PATH`` names.

    The path is literal, ``~`` expanded; ``%`` and ``?`` are percent-encoded. Parameters: ``synchronous=normal``,
    ``mode=ro``.

    Raises:
        ConfigError: it names none; the text says what to write.
    """
    rest = url.partition(":")[2]
    if rest.startswith("//"):
        meant, where = file_url_of_others(rest)
        other = f", or sqlite:{rest[2:]} for a file from the root on" if where == _RELATIVE and rest[2] == "/" else ""
        raise ConfigError(f"Write {meant} ({where}, as SQLAlchemy reads these slashes){other}.")
    text, _, query = rest.partition("?")
    path = unquote(text)
    if not path or path == ":memory:":
        raise ConfigError("sqlite: names no file: write sqlite:PATH, or memory: for this process's memory.")
    if "\0" in path:
        raise ConfigError("The path of a sqlite: URL must not hold a NUL character.")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    synchronous, access = parameters.pop("synchronous", "full"), parameters.pop("mode", "rw")
    if parameters:
        raise ConfigError(
            f"Unknown parameter of a sqlite: URL: {', '.join(sorted(parameters))}. There are synchronous=full|normal"
            " and mode=rw|ro; write a ? in a path as %3F."
        )
    if access not in ("rw", "ro"):
        raise ConfigError(f"mode={access:.40} is not known: it is rw (the default) or ro, which only reads.")
    if synchronous not in ("full", "normal"):
        raise ConfigError(f"synchronous={synchronous} is not known: it is full (the default) or normal.")
    mode: Literal["full", "normal"] = "full" if synchronous == "full" else "normal"
    return FilePlace(os.path.abspath(os.path.expanduser(path)), mode, access == "ro")
