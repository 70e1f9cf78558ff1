"""Filters: what a filter says, checked, as a condition that a parsed document meets or not.

Everything is read here; ``matching.py`` decides. A filter that names ids (``_id`` equal to one, or ``$in``) is answered
by reading these documents, any other by going through the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from langchain_kv.engines.base import DocId
from langchain_kv.engines.indexing import Indexing
from langchain_kv.errors import DataAPIError
from langchain_kv.limits import FILTER_MAX_EXPRESSIONS, IN_MAX
from langchain_kv.server.documents.ids import is_extended, is_object_id, is_uuid, parse_id
from langchain_kv.server.documents.stored import parsed_fields
from langchain_kv.server.query import matching
from langchain_kv.server.query.matching import Test
from langchain_kv.values.paths import PathError, split

__all__ = ["OPERATORS", "Filter", "parse_filter"]


class Filter(NamedTuple):
    """A filter that was checked.

    Attributes:
        is_empty: whether it says nothing, so that every document matches.
        ids: the documents that can match, repeats kept, or None where any can.
        ids_json: the same as they were sent.
        test: what a document has to meet beyond ``ids``; None where nothing.
        names: the fields of the document that ``test`` looks at.
        equalities: each path that has to equal a value, as field names, and the value; without ``_id``.
    """

    is_empty: bool
    ids: Sequence[DocId] | None = None
    ids_json: Sequence[Any] = ()
    test: Test | None = None
    names: frozenset[str] = frozenset()
    equalities: Sequence[tuple[list[str], Any]] = ()

    def matches(self, body: bytes) -> bool:
        """Whether the stored document of an id of ``ids`` (or any document, where that is None) matches."""
        return self.test is None or self.test(parsed_fields(body, self.names))

    @property
    def listed(self) -> tuple[str, str] | None:
        """A field and a text that it has to be, or to hold, by which an engine may find the documents; None without."""
        return next(
            ((path[0], text) for path, text in self.equalities if len(path) == 1 and isinstance(text, str)), None
        )

    @property
    def only_id(self) -> DocId | None:
        """The one id that can match, or None where there are more, or any."""
        return self.ids[0] if self.ids is not None and len(self.ids) == 1 else None


class _Comparison(NamedTuple):
    path: str
    operator: str
    operand: Any


class _Logic(NamedTuple):
    relation: str
    comparisons: list[_Comparison]
    below: list[_Logic]


OPERATORS: Final = ("$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte", "$exists", "$all", "$size")
_SPECIAL: Final = ("$vector", "$vectorize")


def parse_filter(definition: Any, indexing: Indexing) -> Filter:
    """Parse the field ``filter`` of a command; absent or null it says nothing.

    Raises:
        DataAPIError: one of the FILTER codes, or of the codes of a bad ``_id``.
    """
    if definition is None:
        return Filter(is_empty=True)
    if not isinstance(definition, dict):
        raise DataAPIError.of("FILTER_UNSUPPORTED_DATA_TYPE", "A filter is a JSON object: send {} for every document.")
    if len(definition) == 1 and isinstance(text := definition.get("_id"), str):
        return Filter(False, [parse_id(text)], [text])  # the usual one, which has nothing else to check
    root = _Logic("$and", [], [])
    _parse_object(root, definition)
    if sum(comparison.path == "_id" for comparison in _comparisons(root)) > 1:
        raise DataAPIError.of(
            "FILTER_MULTIPLE_ID_FILTER", "A filter can compare '_id' once: use $in for several ids, or two requests."
        )
    count = _check(root)
    if count > FILTER_MAX_EXPRESSIONS:
        raise DataAPIError.of(
            "FILTER_FIELDS_LIMIT_VIOLATION",
            f"The filter has {count} comparisons; at most {FILTER_MAX_EXPRESSIONS} are allowed: split the request.",
        )
    _check_indexed(root, indexing)
    return _built(root, indexing)


def _built(root: _Logic, indexing: Indexing) -> Filter:
    chosen = _pick_ids(root)
    test = _of_indexed(_as_test(root, without=chosen), root, indexing)
    names = frozenset(split(comparison.path)[0] for comparison in _comparisons(root) if comparison is not chosen)
    equalities = [(split(path), operand) for path, operator, operand in _required(root) if operator == "$eq"]
    if chosen is None:
        return Filter(test is None, None, (), test, names, equalities)
    ids_json = chosen.operand if chosen.operator == "$in" else [chosen.operand]
    return Filter(False, [parse_id(one) for one in ids_json], ids_json, test, names, equalities)


def _comparisons(logic: _Logic) -> Iterator[_Comparison]:
    yield from logic.comparisons
    for below in logic.below:
        yield from _comparisons(below)


def _required(logic: _Logic) -> Iterator[_Comparison]:
    """Yield the comparisons that have to hold whatever else does, but for those of ``_id``."""
    yield from (comparison for comparison in logic.comparisons if comparison.path != "_id")
    for below in logic.below:
        if below.relation == "$and":
            yield from _required(below)


def _pick_ids(logic: _Logic) -> _Comparison | None:
    """Return the comparison that fixes the ids that can match: one that has to hold, by ``$eq`` or ``$in``."""
    for comparison in logic.comparisons:
        if comparison.path == "_id" and comparison.operator in ("$eq", "$in"):
            return comparison
    for below in logic.below:
        if below.relation == "$and" and (found := _pick_ids(below)) is not None:
            return found
    return None


# -- reading ----------------------------------------------------------------------------------------------------------


def _parse_object(logic: _Logic, definition: dict[str, Any]) -> None:
    for name, value in definition.items():
        if name == "$not" and isinstance(value, dict):
            inner = _Logic("$not", [], [])
            _parse_object(inner, value)
            logic.below.append(inner)
        elif name in ("$and", "$or") and isinstance(value, list):
            inner = _Logic(name, [], [])
            for part in value:
                if not isinstance(part, dict):
                    raise _invalid(f"every element of '{name}' is an object")
                _parse_object(inner, part)
            logic.below.append(inner)
        elif isinstance(value, list) and name not in _SPECIAL:
            raise _invalid(f"{name[:100]!r} is compared with a list: use $eq, $in or $all")
        elif isinstance(value, dict):
            logic.comparisons.extend(_parse_field(name, value))
        else:
            logic.comparisons.append(_compared(name, "$eq", value))


def _parse_field(path: str, value: dict[str, Any]) -> list[_Comparison]:
    """Parse what stands beside a path: operators, an extended value, or a whole object that the field has to equal."""
    comparisons = []
    for name, operand in value.items():
        if name in OPERATORS:
            comparisons.append(_compared(path, name, operand))
        elif name == "$match":
            _check_path(path, name)
            raise _invalid("$match is for '$lexical' only")
        elif name.startswith("$") and not is_extended({name: operand}):
            raise DataAPIError.of(
                "FILTER_UNSUPPORTED_OPERATOR",
                f"There is no filter operator {name[:100]!r}; there are {', '.join(OPERATORS)}.",
            )
        else:
            return [*comparisons, _compared(path, "$eq", value)]
    return comparisons


def _compared(path: str, operator: str, operand: Any) -> _Comparison:
    _check_path(path, operator)
    if path == "_id" and operator != "$exists":
        for one in operand if isinstance(operand, list) else [operand]:
            parse_id(one)
    elif path != "_id":
        _check_operand(operand)
    return _Comparison(path, operator, operand)


def _check_path(path: str, operator: str) -> None:
    if path == "$lexical":
        raise DataAPIError.of(
            "LEXICAL_NOT_ENABLED_FOR_COLLECTION",
            "Lexical search is not enabled for the collection: do not filter by $lexical.",
        )
    if path in _SPECIAL:
        if operator != "$exists":
            raise _invalid(f"{path!r} is not compared: filter by $exists, or sort by it")
        return
    if path.startswith("$"):
        raise _invalid(f"the path {path[:100]!r} starts with '$'")
    try:
        split(path)
    except PathError as error:
        raise _invalid(f"the path {path[:100]!r} {error}") from None


_EXTENDED_CHECKS: Final[dict[str, Callable[[Any], bool]]] = {
    "$date": lambda value: type(value) is int,
    "$uuid": is_uuid,
    "$objectId": is_object_id,
}


def _check_operand(operand: Any) -> None:
    """Refuse values that no document can hold."""
    if isinstance(operand, list):
        for element in operand:
            _check_operand(element)
    elif is_extended(operand):
        ((kind, inner),) = operand.items()
        is_right: Callable[[Any], bool] | None = _EXTENDED_CHECKS.get(kind)
        if is_right is not None and not is_right(inner):
            raise _invalid(f"a value of type '{kind}' is not well formed")
    elif isinstance(operand, dict):
        for name, value in operand.items():
            if len(operand) == 1 and name.startswith("$"):
                raise _invalid(f"the operator {name[:100]!r} stands inside a value")
            _check_operand(value)


# -- checking ---------------------------------------------------------------------------------------------------------


def _check(logic: _Logic) -> int:
    """Check every operand by its operator; return how many comparisons there are."""
    count = len(logic.comparisons)
    for below in logic.below:
        count += _check(below)
    for path, operator, operand in logic.comparisons:
        if path == "_id" and logic.relation == "$or":
            raise _invalid("'_id' cannot stand inside '$or': use $in, or several requests")
        if operator in _OPERAND_CHECKS:
            _OPERAND_CHECKS[operator](operator, operand)
    return count


def _check_list(operator: str, operand: Any) -> None:
    if not isinstance(operand, list) or len(operand) > IN_MAX:
        raise _invalid(f"{operator} needs a list of at most {IN_MAX} values")


def _check_order(operator: str, operand: Any) -> None:
    if not (isinstance(operand, str | bool | int | Decimal) or (is_extended(operand) and "$date" in operand)):
        raise _invalid(f"{operator} needs a date, a number, a text, true or false")


def _check_exists(operator: str, operand: Any) -> None:
    if not isinstance(operand, bool):
        raise _invalid(f"{operator} needs true or false")


def _check_all(operator: str, operand: Any) -> None:
    if not isinstance(operand, list) or not operand:
        raise _invalid(f"{operator} needs a list of at least one value")


def _check_size(operator: str, operand: Any) -> None:
    is_number = isinstance(operand, int | Decimal) and not isinstance(operand, bool)
    if not is_number or operand < 0 or operand > 2**31 or operand != int(operand):
        raise _invalid(f"{operator} needs an integer of 0 or more")


_OPERAND_CHECKS: Final[dict[str, Callable[[str, Any], None]]] = {
    "$in": _check_list,
    "$nin": _check_list,
    **dict.fromkeys(("$gt", "$gte", "$lt", "$lte"), _check_order),
    "$exists": _check_exists,
    "$all": _check_all,
    "$size": _check_size,
}


def _check_indexed(logic: _Logic, indexing: Indexing) -> None:
    if indexing.is_everything:
        return
    for below in logic.below:
        _check_indexed(below, indexing)
    for path, operator, operand in logic.comparisons:
        names = split(path)
        if path == "_id" and not indexing.has(names) and operator not in ("$eq", "$in"):
            raise DataAPIError.of(
                "FILTER_ID_NOT_INDEXED", f"The collection does not index '_id': use $eq or $in instead of {operator}."
            )
        if path in _SPECIAL and not indexing.is_nothing:  # whatever is allowed or denied by name
            continue
        if path != "_id" and not indexing.has(names):
            raise _unindexed(path)
        _check_operand_indexed(names, operand, indexing)


def _check_operand_indexed(names: list[str], operand: Any, indexing: Indexing) -> None:
    """Refuse a whole object to compare with where some of its fields are not indexed."""
    if isinstance(operand, list):
        for element in operand:
            _check_operand_indexed(names, element, indexing)
    elif isinstance(operand, dict) and not is_extended(operand):
        for name, value in operand.items():
            if not indexing.has([*names, name]):
                raise _unindexed(".".join([*names, name]))
            _check_operand_indexed([*names, name], value, indexing)


def _unindexed(path: str) -> DataAPIError:
    return DataAPIError.of(
        "FILTER_PATH_UNINDEXED",
        f"The collection does not index the path {path[:200]!r}: filter by '_id', or filter what you read. What is"
        " indexed is decided when a collection is created.",
    )


def _invalid(reason: str) -> DataAPIError:
    return DataAPIError.of("FILTER_INVALID_EXPRESSION", f"The filter cannot be used: {reason}.")


# -- building ---------------------------------------------------------------------------------------------------------


def _of_indexed(test: Test | None, root: _Logic, indexing: Indexing) -> Test | None:
    """Let a test see of objects and arrays what is indexed: by nothing else is a whole one compared, on the Data API.

    Of fields that are not indexed at all, a filter names ``_id`` and ``$vector`` only, which stay.
    """
    is_whole = any(isinstance(comparison.operand, dict | list) for comparison in _comparisons(root))
    if test is None or indexing.is_everything or not is_whole:
        return test
    return lambda document: test({**document, **indexing.pruned(document)})


def _test_of(comparison: _Comparison, is_negated: bool) -> Test:
    path, operator, operand = comparison
    if path not in _SPECIAL:
        return matching.compare(split(path), operator, operand, is_negated=is_negated)
    is_wanted = operand is not is_negated  # the one operator is $exists, and a vector of null is none
    return lambda document: (document.get(path) is not None) is is_wanted


def _as_test(logic: _Logic, *, without: _Comparison | None, is_negated: bool = False) -> Test | None:
    """Return the test of a part of a filter; None where it says nothing. Comparisons below ``$not`` are negated."""
    is_negated ^= logic.relation == "$not"
    tests = [_test_of(comparison, is_negated) for comparison in logic.comparisons if comparison is not without]
    for below in logic.below:
        test = _as_test(below, without=without, is_negated=is_negated)
        if test is not None:
            tests.append(test)
    if not tests:
        return None
    if (logic.relation == "$or") is not is_negated:
        return lambda document: any(test(document) for test in tests)
    return lambda document: all(test(document) for test in tests)
