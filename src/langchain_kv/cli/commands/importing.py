"""``lckv import-from`` and ``pack-embeddings``: what archived classes and LangChain's own left, into a target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from langchain_kv.backends.base import Backend
from langchain_kv.cli.moving import ON_EXISTS, backend_of, failed_after, reading, refuse_to_verify_nothing, told
from langchain_kv.cli.notes import MISSING
from langchain_kv.cli.options import COLLECTION, DRY_RUN, KEYSPACE, PREFIX, TO_COLLECTION, TO_TOKEN, TOKEN, VERIFY
from langchain_kv.cli.output import Output
from langchain_kv.cli.parsing import Argument, Arguments, Command, Option
from langchain_kv.cli.secrets import read_secret
from langchain_kv.cli.stopping import cleaning_up_when_stopped
from langchain_kv.cli.targets import Target, url_of
from langchain_kv.errors import ConfigError, StoreError
from langchain_kv.moving.comparing import Comparison, compare
from langchain_kv.moving.copying import copy_values
from langchain_kv.moving.packing import Packed
from langchain_kv.moving.writing import OnExists, Writer
from langchain_kv.places.arguments import resolve
from langchain_kv.places.layouts import LAYOUTS, place_of_layout

__all__ = ["COMMANDS"]

_AGAIN: Final = "What is there already is left when the command is repeated."


def _import_from(arguments: Arguments, output: Output) -> int | None:
    """Store what archived classes, or LangGraph's own stores, keep elsewhere.

    Layouts: files (LocalFileStore; FROM is its folder), sql (SQLStore), redis, mongodb, cassandra, upstash (the stores
    of langchain-community), langgraph (SqliteStore, PostgresStore, for LangGraphStore). FROM is only read.
    """
    target = _target(arguments)
    if arguments.layout == "langgraph":  # LangGraphStore makes its collections so, which matters over HTTP
        target = target._replace(options=replace(target.options, namespaced=True, atomic=True))
    with backend_of(target) as to, backend_of(_left(arguments)) as from_:
        return _moved(from_, to, arguments, output)


def _pack_embeddings(arguments: Arguments, output: Output) -> int | None:
    """Store the vectors of a CacheBackedEmbeddings in the form of EmbeddingCache.

    Under the older keys, which EmbeddingCache.from_bytes_store(model, STORE, namespace=...) and
    read_through=OlderCache(STORE) read. FROM is a target, or what lckv import-from takes; it is only read.
    """
    source = _left(arguments) if arguments.layout else _target(arguments, url=getattr(arguments, "from"))
    target = _target(arguments, collection=arguments.to_collection)
    if (source.place, source.options.collection) == (target.place, target.options.collection):
        raise ConfigError("FROM and TO are one collection: give --to-collection. Older programs read FROM on.")
    opened = backend_of if arguments.layout else reading
    with backend_of(target) as to, opened(source) as from_:
        return _moved(Packed(from_), to, arguments, output)


def _target(arguments: Arguments, *, url: str | None = None, collection: str | None = None) -> Target:
    return Target.named(
        arguments.to if url is None else url,
        collection or arguments.collection,
        keyspace=arguments.keyspace,
        token=arguments.to_token if url is None else arguments.token,
    )


def _left(arguments: Arguments) -> Target:
    """Return what other classes left."""
    given = getattr(arguments, "from")
    # The name of a folder is no secret, and may begin so.
    place = place_of_layout(arguments.layout, given if arguments.layout == "files" else url_of(given), arguments.name)
    token = None if arguments.token is None else read_secret("--token", arguments.token)
    options = resolve("collection", place, token=token, component=None)
    return Target(place, replace(options, collection=arguments.name or ""))


def _moved(source: Backend, target: Backend, arguments: Arguments, output: Output) -> int | None:
    """Copy, say what became of it; return the exit code."""
    refuse_to_verify_nothing(arguments)
    writer = Writer(target, arguments.on_exists or OnExists.FAIL, dry_run=arguments.dry_run)
    prefix = arguments.prefix or ""
    try:
        with cleaning_up_when_stopped(), output.progress("values") as progress:
            copy_values(
                source,
                writer,
                prefix=prefix,
                watch=lambda tally: progress.add(tally.read - progress.done),
            )
    except StoreError as error:
        return failed_after(output, writer.tally, error, _AGAIN)
    if isinstance(source, Packed) and not output.quiet:
        output.note(f"{source.bytes_before:,} bytes of vectors became {source.bytes_after:,}")
    code = told(output, writer.tally, dry_run=arguments.dry_run)
    return code or (_verified(source, target, prefix, output) if arguments.verify else None)


def _verified(source: Backend, target: Backend, prefix: str, output: Output) -> int | None:
    comparison = Comparison()
    wrong = sum(1 for _ in compare(source, target, comparison, prefix=prefix, both_ways=False))
    output.note(f"verified: {comparison.same:,} the same, {wrong:,} not")
    return MISSING if wrong else None


def _layout(text: str) -> str:
    if text not in LAYOUTS:
        raise ValueError(f"one of {', '.join(LAYOUTS)}")
    return text


_LAYOUT: Final = Option("--layout", "What FROM has: see above.", "LAYOUT", convert=_layout)
_NAME: Final = Option("--name", "The namespace, collection or table in FROM.", "NAME")
_TO: Final[tuple[Any, ...]] = (
    KEYSPACE,
    TOKEN,
    TO_TOKEN,
    PREFIX,
    ON_EXISTS,
    VERIFY,
)

COMMANDS: Final = (
    Command(
        "import-from",
        _import_from,
        "lckv import-from ./cache sqlite:kv.db --layout files --collection kv",
        arguments=(Argument("FROM"), Argument("TO")),
        options=(
            _LAYOUT._replace(required=True),
            _NAME,
            COLLECTION._replace(help="The collection in TO."),
            *_TO,
            DRY_RUN,
        ),
    ),
    Command(
        "pack-embeddings",
        _pack_embeddings,
        "lckv pack-embeddings sqlite:a.db sqlite:b.db --collection vectors",
        arguments=(Argument("FROM"), Argument("TO")),
        options=(
            COLLECTION,
            TO_COLLECTION,
            _LAYOUT._replace(help="What FROM has, as of lckv import-from."),
            _NAME,
            *_TO,
            DRY_RUN,
        ),
    ),
)
