"""``lckv collections``, ``namespaces``, ``clear``, ``drop`` and ``purge``."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import Final

from langchain_kv.cli.options import COLLECTION, DB, DRY_RUN, KEYSPACE, PLACE, STORE, TIMEOUT, TOKEN, YES
from langchain_kv.cli.output import Output
from langchain_kv.cli.parsing import Arguments, Command
from langchain_kv.cli.table import printable
from langchain_kv.cli.targets import expired_in, require_file, target_of
from langchain_kv.errors import ConfigError, UnknownCollectionError
from langchain_kv.values.namespaces import namespace_of, namespaces_below, subtree_prefix

__all__ = ["COMMANDS"]


def _collections(arguments: Arguments, output: Output) -> None:
    """Print the names of the collections of a keyspace, one a line.

    In SQL databases and on Redis a collection is there as long as it has a key; on Redis all keys are listed for it.
    """
    target = target_of(arguments)
    require_file(target.place)
    for name in target.place.collections(target.options):
        output.record(name) if output.as_json else output.write(f"{printable(name)}\n")


def _namespaces(arguments: Arguments, output: Output) -> None:
    """Print the namespaces that have a key, each as a JSON list of its labels, one a line.

    With --namespace those below it, and itself. All their keys are listed for it.
    """
    target = target_of(arguments)
    prefixes: set[str] = set()
    with (
        target._replace(labels=()).opened() as backend,
        output.progress() as progress,
        closing(backend.scan(subtree_prefix(target.labels), values=False)) as pages,
    ):
        for page in pages:
            prefixes.update(namespace_of(key) for key, _ in page)
            progress.add(len(page))
    for labels in namespaces_below(prefixes, target.labels):
        if output.is_for_people:
            output.write(printable(" / ".join(labels)) + "\n")
        else:
            output.record(list(labels))


def _clear(arguments: Arguments, output: Output) -> None:
    """Remove all keys of a collection, or of a namespace.

    The collection stays. Without --yes it only says how many keys there are. Keys that others write meanwhile may
    stay. lckv del --prefix removes a part.
    """
    with target_of(arguments).opened() as backend:
        count = backend.count("")
        if arguments.dry_run:
            backend.check_writable()
            output.counts(would_be_removed=count)
            return
        _require_yes(arguments, count, "to remove them")
        backend.clear("")
    output.counts(removed=count)


def _drop(arguments: Arguments, output: Output) -> None:
    """Remove a collection with all that is in it.

    One that is missing is no error. Without --yes it only says how many keys there are. The file stays; lckv compact
    gives its space back.
    """
    target = target_of(arguments)
    require_file(target.place)
    if arguments.dry_run:
        with target.opened() as backend:
            backend.check_writable()
            count = 0
            with suppress(UnknownCollectionError):
                count = backend.count("")
        output.counts(would_be_removed=count)
        return
    if not arguments.yes:
        with target.opened() as backend:
            count = backend.count("")
        _require_yes(arguments, count, "to drop the collection")
    target.place.drop(target.options)


def _purge(arguments: Arguments, output: Output) -> None:
    """Remove for good what has expired.

    It is neither served nor listed anyway: this gives its room back. Over HTTP and on Cassandra the whole collection
    is listed for it. --dry-run is there for files only.
    """
    target = target_of(arguments)
    if arguments.dry_run:
        expired = expired_in(target)
        with target.opened() as backend:
            backend.get_many([])  # of a collection that is not there
            backend.check_writable()
        output.counts(would_be_removed=expired)
        return
    with target.opened() as backend:
        output.counts(removed=backend.purge())


def _require_yes(arguments: Arguments, count: int, what_for: str) -> None:
    if not arguments.yes:
        raise ConfigError(f"Keys that are there: {count:,}. Nothing was removed: give --yes {what_for}.")


_ONE: Final = (DB, COLLECTION, KEYSPACE, TOKEN, TIMEOUT)

COMMANDS: Final = (
    Command("collections", _collections, "lckv collections --db sqlite:kv.db", options=PLACE),
    Command("namespaces", _namespaces, "lckv namespaces --db sqlite:kv.db --collection notes", options=STORE),
    Command("clear", _clear, "lckv clear --yes --db sqlite:kv.db --collection notes", options=(*STORE, DRY_RUN, YES)),
    Command("drop", _drop, "lckv drop --yes --db sqlite:kv.db --collection notes", options=(*_ONE, DRY_RUN, YES)),
    Command("purge", _purge, "lckv purge --db sqlite:kv.db --collection notes", options=(*_ONE, DRY_RUN)),
)
