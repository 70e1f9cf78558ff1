"""Searches: the items of a namespace and of those below it, filtered, in a total order, page by page."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple, cast

from langgraph.store.base import SearchItem, SearchOp, validate_op_namespace

from langchain_kv.backends.base import Found, Nearest, Skimmed, Stored
from langchain_kv.backends.documents import found_in, in_document
from langchain_kv.errors import UsageError
from langchain_kv.langgraph.filters import Predicate, compiled, held_by
from langchain_kv.langgraph.items import UPDATED, damage_of, search_item_of
from langchain_kv.langgraph.meaning import Scorer
from langchain_kv.langgraph.paging import Pages, Ranking
from langchain_kv.langgraph.records import Access
from langchain_kv.runtime.plans import Plan
from langchain_kv.values.keys import shown
from langchain_kv.values.namespaces import subtree_prefix

__all__ = ["Answer", "Question", "bounds_of", "search"]

SHORT_MAX: Final = 20
"""Items of a search for which a target may rank those only, and no list is made from which the next page is cut."""

KEPT_MAX: Final = 1_000
"""Items of a search that are kept until its page is cut from them; of more those of the page are read again."""

NEAREST_MORE: Final = 5
FILTERED_MORE: Final = 40
"""Items beyond those wanted that a target is asked for, of which some score as the last one; and beside a filter."""

SCORES_EQUAL: Final = 1e-6
"""How far scores may differ that are one to a target, which computes them in another order."""

_UPDATED: Final = in_document(UPDATED)  # in an item that is nested in another value there would be one brace more

_logger = logging.getLogger("langchain_kv")


def bounds_of(op: Any) -> tuple[int, int]:
    """Return limit and offset of an operation.

    Raises:
        UsageError: one is no number of 0 or more (a ValueError).
    """
    for name in ("limit", "offset"):
        value = getattr(op, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UsageError(f"{name} must be a number of 0 or more, got {value!r:.40}.")
    return op.limit, op.offset


class Question:
    """A search, checked.

    Attributes:
        tree: the namespace in which, and below which, it looks.
        passes: tells which values pass the filter; None where there is none.
        holding: what the document of each value that passes holds.
        text: what is asked by its meaning; None where nothing is.
        is_plain: whether it asks for all items.
        is_short: whether it begins, and asks for few, as nobody does who takes page after page.
        signature: the same for searches that ask the same by pages of the same length, whichever page they want. So
            each reader begins with a list of his own: nothing is kept from where he asks for his second page.
    """

    def __init__(self, op: SearchOp, *, by_meaning: bool) -> None:
        validate_op_namespace(op)
        self.limit, self.offset = bounds_of(op)
        self.tree = subtree_prefix(op.namespace_prefix)
        self.passes: Predicate | None = compiled(op.filter)
        self.holding = held_by(op.filter)
        self.text: str | None = op.query if by_meaning and op.query else None
        self.is_plain = self.passes is None and self.text is None
        self.is_short = not self.offset and self.limit <= SHORT_MAX
        self.refresh = op.refresh_ttl
        self.signature = (self.tree, repr(op.filter), self.text, self.limit)


class Answer(NamedTuple):
    """What a search answers.

    Attributes:
        items: the items.
        expiring: the records' keys of those that expire, and what is stored.
    """

    items: list[SearchItem]
    expiring: list[tuple[str, Found]]


def search(question: Question, access: Access, pages: Pages, scorer: Scorer | None) -> Plan[Answer]:
    """Answer a question.

    Args:
        question: the question.
        access: to the records.
        pages: where earlier pages of the same search ended.
        scorer: compares with the question, where it has a text.
    """
    if not question.limit:
        return Answer([], [])
    rest = pages.take(question.signature, question.offset) if question.offset else None
    kept: Mapping[str, Stored | bytes] = {}
    if rest is not None:
        ranking, start = rest
    else:
        if scorer is not None and question.is_short:
            nearest = yield from _nearest(question, access, scorer)
            if nearest is not None:
                return nearest
        start = question.offset
        keys: list[str] | None = None
        if question.is_plain:
            keys = yield access.ranked(question.tree, question.limit if question.is_short else None)
        if keys is not None:
            ranking = Ranking(keys, [])
        else:
            looked = _Looked(question, scorer)
            yield access.scan_tree(question.tree, looked.take, question.holding)
            ranking, kept = looked.ranking(), looked.kept
    answer, end = yield from _page(question, access, ranking, start, kept)
    if end >= len(ranking.keys):  # whoever got a whole page asks for another; a short search may have more
        ranking, end = Ranking([], []), 0
    if ranking.keys or (len(answer.items) == question.limit and not question.is_short):
        pages.keep(question.signature, question.offset + len(answer.items), ranking, end)
    return answer


def _nearest(question: Question, access: Access, scorer: Scorer) -> Plan[Answer | None]:
    """Answer by what the target finds nearest; None where it cannot, or where others may belong to the answer.

    What scores as the last one that it found, or nearly so, has equals that it may not have found, of which the order
    of moments and keys says which come first.
    """
    more = NEAREST_MORE if question.passes is None else question.limit + FILTERED_MORE
    near: Nearest | None = yield access.nearest(question.tree, scorer.vector, question.limit + more)
    if near is None:
        return None
    looked = _Looked(question, scorer)
    ranking = looked.nearest(near)
    if len(ranking.keys) < question.limit:
        return None
    answer, _ = yield from _page(question, access, ranking, 0, looked.kept)
    return answer if len(answer.items) == question.limit else None  # not where one of them is damaged


def _page(
    question: Question, access: Access, ranking: Ranking, start: int, kept: Mapping[str, Stored | bytes]
) -> Plan[tuple[Answer, int]]:
    """Read the next items of a ranking; what is there no more, or does not pass any more, is left out."""
    answer = Answer([], [])
    passes = question.passes
    while start < len(ranking.keys) and len(answer.items) < question.limit:
        keys = ranking.keys[start : start + question.limit - len(answer.items)]
        if kept:
            found: Sequence[Stored | bytes | None] = [kept[key] for key in keys]
        else:
            found = yield access.get(keys)
        for at, (key, stored) in enumerate(zip(keys, found, strict=True), start):
            if stored is None:
                continue
            try:
                item = search_item_of(key, stored, ranking.scores[at] if ranking.scores else None)
            except (AttributeError, TypeError, ValueError, LookupError):
                _warn(key, stored)
                continue
            if passes is None or passes(item.value):
                answer.items.append(item)
                if isinstance(stored, Found) and stored.expires_at_ms is not None:
                    answer.expiring.append((key, stored))
        start += len(keys)
    return answer, start


class _Looked:
    """What a scan has found so far.

    Attributes:
        kept: what is stored of each key that was found, while that is little.
    """

    def __init__(self, question: Question, scorer: Scorer | None) -> None:
        self.kept: dict[str, Stored | bytes] = {}
        self._question = question
        self._scorer = scorer
        self._held = question.holding.text.encode() if question.holding is not None else b""
        self._keeps = True
        self._found: list[tuple[bytes, str]] = []
        self._scores: list[float | None] = []

    def take(self, page: Skimmed) -> None:
        """Take a page of the scan."""
        found = (
            self._parsed(page) if self._scorer is not None or self._question.passes is not None else self._read(page)
        )
        self._found += found
        if self._keeps:
            self._keeps = len(self._found) <= KEPT_MAX
            self.kept.update(page)  # type: ignore[arg-type]
            if not self._keeps:
                self.kept.clear()

    def nearest(self, near: Nearest) -> Ranking:
        """Take what a target found; return in order what surely comes first."""
        self.take([*near.items])
        scores = [score for score in self._scores if score is not None]
        least = -math.inf if near.is_all else min(scores, default=math.inf) + SCORES_EQUAL
        keys = {key for key, _ in near.items}
        self.take([item for item in near.apart if item[0] not in keys])
        found = self.ranking()
        count = sum([score is not None and score > least for score in found.scores])
        return Ranking(found.keys[:count], found.scores[:count])

    def _read(self, page: Skimmed) -> list[tuple[bytes, str]]:
        """Return the moments and the keys of a page of items that all pass: most are not parsed."""
        found: list[tuple[bytes, str]] = []
        for key, one in page:
            updated = _UPDATED.text_in(one) if type(one) is bytes else None
            if updated is not None:
                found.append((updated, key))
            else:
                found += self._parsed([(key, one)])
        return found

    def _parsed(self, page: Skimmed) -> list[tuple[bytes, str]]:
        passes, held = self._question.passes, self._held
        found: list[tuple[bytes, str]] = []
        vectors: list[Any] = []
        for key, one in page:
            if one is None or (type(one) is bytes and held not in one):
                continue
            stored = _parsed(one)
            try:
                item = stored.value  # type: ignore[union-attr]
                value, updated = item["value"], item["updated_at"].encode()
                if type(value) is not dict:
                    raise TypeError
            except (AttributeError, TypeError, ValueError, LookupError):
                _warn(key, stored)
                continue
            if passes is None or passes(value):
                found.append((updated, key))
                vectors.append(item.get("vectors"))
        if self._scorer is not None:
            self._scores += self._scorer.scores_of(vectors)
        return found

    def ranking(self) -> Ranking:
        """Return what was found, in order."""
        if self._scorer is None:
            found = self._found
            found.sort(key=itemgetter(1))
            found.sort(key=itemgetter(0), reverse=True)
            return Ranking([key for _, key in found], [])
        scored = [(each[0], each[1], score) for each, score in zip(self._found, self._scores, strict=True)]
        scored.sort(key=itemgetter(1))
        scored.sort(key=itemgetter(0), reverse=True)
        scored.sort(key=_nearness)
        return Ranking([key for _, key, _ in scored], [score for _, _, score in scored])


def _parsed(one: Stored | bytes) -> Stored:
    return found_in(one) if type(one) is bytes else cast("Stored", one)


def _warn(key: str, stored: Stored | bytes) -> None:
    _logger.warning("A search leaves out the item %s: %s", shown(key), damage_of(stored) or "it is damaged")


def _nearness(found: tuple[bytes, str, float | None]) -> tuple[bool, float]:
    score = found[2]
    return (True, 0.0) if score is None else (False, -score)
