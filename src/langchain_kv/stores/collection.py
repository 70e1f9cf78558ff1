"""What a store shows of its collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

__all__ = ["CollectionHandle"]


@dataclass(frozen=True)
class CollectionHandle:
    """What a store says of its collection. For commands on the collection itself use astrapy or any Data API client.

    Attributes:
        name: the collection's name.
        keyspace: the keyspace's name.
    """

    name: str
    keyspace: str

    @property
    def full_name(self) -> str:
        """The keyspace's and the collection's name with a dot between."""
        return f"{self.keyspace}.{self.name}"

    def __getattr__(self, attribute: str) -> NoReturn:
        raise AttributeError(
            f"A store's collection has name, keyspace and full_name, not {attribute!r}: use astrapy for commands on"
            f" the collection."
        )
