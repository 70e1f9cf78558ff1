"""``memory:``, the memory of this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from langchain_kv.errors import ConfigError
from langchain_kv.places.embedded import EmbeddedPlace
from langchain_kv.runtime.forks import importing

if TYPE_CHECKING:
    from langchain_kv.engines.base import Engine

__all__ = ["MemoryPlace", "parse_memory_url"]


@dataclass(frozen=True)
class MemoryPlace(EmbeddedPlace):
    """A database in this process's memory.

    Attributes:
        name: of the database; empty for the usual one.
    """

    name: str

    @property
    def shown(self) -> str:
        """The URL."""
        return f"memory:{self.name}"

    def make_engine(self) -> Engine:
        """Return the engine of this name."""
        with importing.lock:
            from langchain_kv.engines.memory import memory_engine

        return memory_engine(self.name)

    def without_secrets(self) -> MemoryPlace:
        """Return this place."""
        return self


def parse_memory_url(url: str) -> MemoryPlace:
    """Return what ``memory:`` or ``memory:NAME`` names.

    Raises:
        ConfigError: it has slashes.
    """
    name = url.partition(":")[2]
    if name.startswith("//"):
        raise ConfigError(f"Write memory:NAME without slashes: memory:{name[2:]}")
    return MemoryPlace(name)
