"""Which namespaces there are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from langgraph.store.base import ListNamespacesOp, MatchCondition, validate_op_namespace

from langchain_kv.errors import UsageError
from langchain_kv.langgraph.items import namespace_in
from langchain_kv.langgraph.records import Access
from langchain_kv.langgraph.searching import bounds_of
from langchain_kv.runtime.plans import Plan
from langchain_kv.values.namespaces import subtree_prefix

__all__ = ["Listing", "list_namespaces"]

_ANY = "*"


class Listing:
    """A question for namespaces, checked.

    Attributes:
        tree: the namespace in which, and below which, all are that matter.
    """

    def __init__(self, op: ListNamespacesOp) -> None:
        validate_op_namespace(op)
        self.limit, self.offset = bounds_of(op)
        self._conditions = op.match_conditions or ()
        self._depth = op.max_depth
        if self._depth is not None and (not isinstance(self._depth, int) or self._depth < 1):
            raise UsageError(f"max_depth must be None or a number of 1 or more, got {self._depth!r:.40}.")
        for condition in self._conditions:
            if condition.match_type not in ("prefix", "suffix"):
                raise UsageError(f"A match_type is 'prefix' or 'suffix', got {condition.match_type!r:.40}.")
        prefixes = [tuple(each.path) for each in self._conditions if each.match_type == "prefix"]
        self.tree = max((_literal(path) for path in prefixes), key=len, default="")

    def answer(self, namespaces: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Return those of all namespaces that are asked for."""
        matching = {
            namespace[: self._depth]
            for namespace in namespaces
            if all(_matches(condition, namespace) for condition in self._conditions)
        }
        return sorted(matching)[self.offset : self.offset + self.limit]


def list_namespaces(listing: Listing, access: Access) -> Plan[list[tuple[str, ...]]]:
    """Answer which namespaces there are."""
    if not listing.limit:
        return []
    prefixes: set[str] = yield access.namespaces(listing.tree)
    return listing.answer([found for prefix in prefixes if (found := namespace_in(prefix)) is not None])


def _literal(path: tuple[str, ...]) -> str:
    return subtree_prefix(tuple(takewhile(lambda label: label != _ANY, path)))


def _matches(condition: MatchCondition, namespace: tuple[str, ...]) -> bool:
    path = tuple(condition.path)
    if len(path) > len(namespace):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in (_ANY, label) for wanted, label in zip(path, part, strict=True))
