"""What a collection is created with: createCollection's options read and compared, and what they index."""

from __future__ import annotations

import re
from typing import Any, Final

from langchain_kv.engines.base import Settings
from langchain_kv.errors import DataAPIError
from langchain_kv.limits import INDEXING_MAX_UTF16, NAME_MAX_LENGTH, VECTOR_MAX_DIMENSION
from langchain_kv.values.json_text import write
from langchain_kv.values.paths import PathError, split

__all__ = ["ID_TYPES", "check_name", "explained", "is_same", "parse_options"]

ID_TYPES: Final = ("objectId", "uuid", "uuidv6", "uuidv7")

METRICS: Final = ("cosine", "dot_product", "euclidean")

SOURCE_MODELS: Final = (
    "ada002",
    "bert",
    "cohere-v3",
    "gecko",
    "nv-qa-4",
    "openai-v3-large",
    "openai-v3-small",
    "other",
)
"""What a Data API tunes its index for; here it only decides the metric where none is given."""

_NAME: Final = re.compile(rf"[A-Za-z0-9_]{{1,{NAME_MAX_LENGTH}}}")


def check_name(name: Any, kind: str) -> str:
    """Return ``name`` if a keyspace or collection can have it.

    Raises:
        DataAPIError: UNSUPPORTED_SCHEMA_NAME.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise DataAPIError.of(
        "UNSUPPORTED_SCHEMA_NAME",
        f"A {kind} needs a name of 1 to {NAME_MAX_LENGTH} ASCII letters, digits and underscores,"
        f" given as text in the field 'name'.",
    )


def parse_options(options: dict[str, Any]) -> Settings:
    """Return the settings that createCollection's ``options`` ask for, checked; what is switched off is left out.

    Raises:
        DataAPIError: INVALID_INDEXING_DEFINITION, INVALID_CREATE_COLLECTION_OPTIONS, INVALID_CREATE_COLLECTION_FIELD,
            VECTOR_SEARCH_TOO_BIG_VALUE, or, for what this server does not have, LEXICAL_NOT_AVAILABLE_FOR_DATABASE,
            RERANKING_FEATURE_NOT_ENABLED, VECTORIZE_FEATURE_NOT_AVAILABLE.
    """
    if _is_enabled(options.get("lexical"), "lexical"):
        raise DataAPIError.of(
            "LEXICAL_NOT_AVAILABLE_FOR_DATABASE",
            "The local Data API has no lexical search: leave out the option 'lexical', or set 'enabled' to false.",
        )
    if _is_enabled(options.get("rerank"), "rerank"):
        raise DataAPIError.of(
            "RERANKING_FEATURE_NOT_ENABLED",
            "The local Data API has no reranking: leave out the option 'rerank', or set 'enabled' to false.",
        )
    settings: Settings = {}
    if options.get("defaultId") is not None:
        settings["defaultId"] = _parse_default_id(options["defaultId"])
    if options.get("vector") is not None:
        settings["vector"] = _parse_vector(options["vector"])
    if options.get("indexing") is not None:
        settings["indexing"] = _parse_indexing(options["indexing"])
    return settings


def is_same(one: Settings, other: Settings) -> bool:
    """Whether settings are equal as createCollection compares them: paths as sets, absent is not empty."""
    return _comparable(one) == _comparable(other)


def explained(settings: Settings) -> dict[str, Any]:
    """Return the settings in the form of findCollections with ``explain``."""
    options: dict[str, Any] = {name: settings[name] for name in ("defaultId", "vector") if settings.get(name)}
    if settings.get("indexing") is not None:
        options["indexing"] = {name: paths for name, paths in settings["indexing"].items() if paths}
    return {**options, "lexical": {"enabled": False}, "rerank": {"enabled": False}}


def _is_enabled(option: Any, name: str) -> bool:
    if option is None:
        return False
    if not isinstance(option, dict) or not isinstance(option.get("enabled"), bool):
        raise _bad_option(f"The option '{name}' needs an object with 'enabled': true or false.")
    return bool(option["enabled"])


def _check_fields(option: Any, name: str, fields: set[str], told: str) -> None:
    for field in option if isinstance(option, dict) else ():
        if field not in fields:
            raise DataAPIError.of(
                "INVALID_CREATE_COLLECTION_FIELD",
                f"The option '{name}' has no field {field[:100]!r}; there is {told}.",
            )


def _parse_default_id(option: Any) -> dict[str, str]:
    _check_fields(option, "defaultId", {"type"}, "'type'")
    kind = option.get("type") if isinstance(option, dict) else None
    if kind not in ID_TYPES:
        raise _bad_option(f"The option 'defaultId' needs an object with 'type', one of {', '.join(ID_TYPES)}.")
    return {"type": kind}


def _parse_vector(option: Any) -> dict[str, Any]:
    """Return the option ``vector`` whole: what it leaves out as the Data API has it."""
    names = {"dimension": "dimension", "size": "dimension", "metric": "metric", "function": "metric"}
    if not isinstance(option, dict):
        raise _bad_option("The option 'vector' needs an object with 'dimension'.")
    _check_fields(option, "vector", {*names, "sourceModel", "service"}, "'dimension', 'metric' and 'sourceModel'")
    if option.get("service") is not None:
        raise DataAPIError.of(
            "VECTORIZE_FEATURE_NOT_AVAILABLE",
            "The local Data API calls no embedding service: leave out 'service', and send vectors.",
        )
    given = {names.get(name, name): value for name, value in option.items() if value is not None}
    model, dimension = given.get("sourceModel", "other"), given.get("dimension")
    if model not in SOURCE_MODELS:
        raise _bad_field(f"'sourceModel' is one of {', '.join(SOURCE_MODELS)}")
    metric = given.get("metric", "cosine" if model == "other" else "dot_product")
    if metric not in METRICS:
        raise _bad_field(f"'metric' is one of {', '.join(METRICS)}")
    if dimension is None:
        raise _bad_option("The option 'vector' needs 'dimension', how many numbers a vector has.")
    if type(dimension) is not int or dimension <= 0:
        raise _bad_field("'dimension' is how many numbers a vector has, an integer of at least 1")
    if dimension > VECTOR_MAX_DIMENSION:
        raise DataAPIError.of(
            "VECTOR_SEARCH_TOO_BIG_VALUE", f"A vector has at most {VECTOR_MAX_DIMENSION:,} numbers, not {dimension:,}."
        )
    return {"dimension": dimension, "metric": metric, "sourceModel": model}


def _parse_indexing(option: Any) -> dict[str, list[str]]:
    _check_fields(option, "indexing", {"allow", "deny"}, "'allow' and 'deny'")
    if not isinstance(option, dict) or len(option) != 1:
        raise _bad_indexing("it needs exactly one of 'allow' and 'deny'")
    ((name, paths),) = option.items()
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise _bad_indexing(f"'{name}' needs a list of paths")
    if sum(map(len, paths)) > INDEXING_MAX_UTF16:
        raise _bad_indexing(f"its paths have over {INDEXING_MAX_UTF16:,} characters together, which are too many here")
    write(paths)  # refuses half of a surrogate pair, which could be kept but never sent again
    if len(set(paths)) != len(paths):
        raise _bad_indexing(f"'{name}' names a path twice")
    for path in paths:
        if path.startswith("$") and path != "$vector":
            raise _bad_indexing(f"the path {path[:100]!r} starts with '$'")
        if path == "*" and len(paths) > 1:
            raise _bad_indexing("'*' must stand alone")
        try:
            split(path)
        except PathError as error:
            raise _bad_indexing(f"the path {path[:100]!r} {error}") from None
    return {name: paths}


def _comparable(settings: Settings) -> tuple[Any, ...]:
    indexing, default_id = settings.get("indexing"), settings.get("defaultId")
    return (
        default_id and default_id["type"],
        settings.get("vector"),
        None if indexing is None else (frozenset(indexing.get("allow") or ()), frozenset(indexing.get("deny") or ())),
    )


def _bad_option(message: str) -> DataAPIError:
    return DataAPIError.of("INVALID_CREATE_COLLECTION_OPTIONS", message)


def _bad_field(reason: str) -> DataAPIError:
    return DataAPIError.of("COMMAND_FIELD_VALUE_INVALID", f"The option 'vector' cannot be used: {reason}.")


def _bad_indexing(reason: str) -> DataAPIError:
    return DataAPIError.of("INVALID_INDEXING_DEFINITION", f"The option 'indexing' cannot be used: {reason}.")
