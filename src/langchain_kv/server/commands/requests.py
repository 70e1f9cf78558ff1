"""One command as a handler sees it: its fields, checked by type, and the collection it is about."""

from __future__ import annotations

from typing import Any, NamedTuple

from langchain_kv.engines.base import CollectionName, Engine, Settings
from langchain_kv.engines.indexing import Indexing
from langchain_kv.errors import DataAPIError
from langchain_kv.values.json_text import write

__all__ = ["Collection", "Request", "flag", "invalid", "mismatch", "name_to_drop", "wants_after"]


class Collection(NamedTuple):
    """A collection that exists, as it was when the command began."""

    name: CollectionName
    settings: Settings
    indexing: Indexing


class Request(NamedTuple):
    """A command on its way.

    Attributes:
        engine: where documents are kept; called by its coroutines and through its bridge only.
        command: the name of the command.
        path: the keyspace and the collection of the URL, as far as it names them.
        fields: the fields of the command, none of which its registration does not know.
        options: the field ``options``, likewise; empty where it is absent or null.
    """

    engine: Engine
    command: str
    path: tuple[str, ...]
    fields: dict[str, Any]
    options: dict[str, Any]

    @property
    def keyspace(self) -> str:
        """The keyspace of the URL."""
        return self.path[0]

    def read_collection(self) -> Collection:
        """Look the collection up; called on the engine's side of its bridge.

        Raises:
            UnknownKeyspaceError, UnknownCollectionError: there is none.
        """
        name = CollectionName(*self.path)
        settings = self.engine.settings(name)
        return Collection(name, settings, Indexing.of(settings))

    async def collection(self) -> Collection:
        """As ``read_collection``, for coroutines."""
        return await self.engine.bridge.read_short(self.read_collection)

    async def check_keyspace(self) -> None:
        """Look the keyspace up.

        Raises:
            UnknownKeyspaceError: there is none.
        """
        await self.engine.bridge.read(self.engine.collections, self.keyspace)


def flag(given: dict[str, Any], name: str) -> bool:
    """Return a true-or-false option; absent or null is false."""
    value = given.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise mismatch(f"The option '{name}' is either true or false.")


def name_to_drop(request: Request) -> str:
    """Return the field ``name`` of a command that drops something: any text that is not empty."""
    name = request.fields.get("name")
    if not isinstance(name, str) or not name:
        raise invalid(f"{request.command} needs the field 'name', a text that is not empty.")
    write(name)  # refuses half of a surrogate pair, which not every engine can look for
    return name


def wants_after(request: Request) -> bool:
    """Whether the option ``returnDocument`` asks for the document as it is after the change."""
    wanted = request.options.get("returnDocument")
    if wanted not in (None, "before", "after"):
        raise invalid("The option 'returnDocument' is 'before' or 'after'.")
    return bool(wanted == "after")


def invalid(message: str) -> DataAPIError:
    """Return the error of a field with a value that it cannot have."""
    return DataAPIError.of("COMMAND_FIELD_VALUE_INVALID", message)


def mismatch(message: str) -> DataAPIError:
    """Return the error of a request, or a part of it, that has the wrong JSON type."""
    return DataAPIError.of("REQUEST_STRUCTURE_MISMATCH", message)
