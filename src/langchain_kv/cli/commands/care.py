"""``lckv info``, ``check`` and ``compact``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from time import perf_counter
from typing import Any, Final

from langchain_kv.backends.base import Damaged
from langchain_kv.cli.notes import MISSING
from langchain_kv.cli.options import DRY_RUN, PLACE
from langchain_kv.cli.output import Output
from langchain_kv.cli.parsing import Arguments, Command, Option
from langchain_kv.cli.progress import Progress
from langchain_kv.cli.targets import Target, figures_of, require_file, target_of
from langchain_kv.cli.wording import worded
from langchain_kv.errors import ConfigError, EngineBusyError, EngineError, EngineFileError, UnsupportedError
from langchain_kv.places.backups import compact, problems
from langchain_kv.places.files import FilePlace

__all__ = ["COMMANDS"]


def _info(arguments: Arguments, output: Output) -> None:
    """Print what is known of a target: whether it answers, versions, collections with counts, sizes.

    Of a file also how many pages are free and how many keys have expired, of all keyspaces. Elsewhere the keys of each
    collection are counted, for which some targets list them: --collection takes one.
    """
    target = target_of(arguments)
    require_file(target.place)
    began = perf_counter()
    facts = target.place.facts(target.options)
    names = _collections(arguments, target)
    answered_s = perf_counter() - began
    if isinstance(target.place, FilePlace):
        rows = [each._asdict() for each in figures_of(target) if arguments.collection in (None, each.name)]
    else:
        with output.progress("collections", len(names)) as progress:
            rows = [_counted(target, name, progress) for name in names]
        if arguments.collection is not None and not facts:  # nothing was asked before
            answered_s = perf_counter() - began
    answered_ms = round(answered_s * 1000, 1)
    fields = {"target": target.place.shown, "reachable": True, "answered_ms": answered_ms, **facts}
    if not output.is_for_people:
        output.record({**fields, "collections": rows})
        return
    output.facts(fields)
    output.write("\n")
    output.rows(rows, ("keyspace", "name", "keys", "expired", "bytes"))


def _collections(arguments: Arguments, target: Target) -> list[str]:
    """Return the collection that was named, else all of those that the target names."""
    if arguments.collection is not None:
        return [arguments.collection]
    try:
        return target.place.collections(target.options)
    except UnsupportedError:
        return []


def _counted(target: Target, name: str, progress: Progress) -> dict[str, Any]:
    with target.of(name).opened() as backend:
        row = {"keyspace": target.options.keyspace, "name": name, "keys": backend.count("")}
    progress.add()
    return row


def _check(arguments: Arguments, output: Output) -> int | None:
    """Look for damage: a file's structure, and values that cannot be read, by key.

    Prints a line for each problem, and ends with exit code 1 where there is one. It reads everything: of a target, or
    of --collection.
    """
    target = target_of(arguments)
    require_file(target.place)
    read, found = 0, 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal found
        with output.progress() as progress:
            for row in _problems(arguments, target, progress):
                found += 1
                progress.hide()
                yield row
            nonlocal read
            read = progress.done

    output.rows(rows(), ("collection", "key", "problem"))
    output.counts(read=read, problems=found)
    return MISSING if found else None


def _problems(arguments: Arguments, target: Target, progress: Progress) -> Iterator[dict[str, Any]]:
    """Yield what is wrong, going on behind what cannot be read."""
    told_of_file: set[str] = set()
    try:
        if isinstance(target.place, FilePlace):
            for line in problems(target.place, target.options):
                yield {"collection": None, "key": None, "problem": line}
    except EngineBusyError:
        raise
    except EngineError as error:
        told_of_file.add(worded(str(error)))
        yield {"collection": None, "key": None, "problem": worded(str(error))}
    try:
        names = [arguments.collection] if arguments.collection is not None else target.place.collections(target.options)
    except (EngineBusyError, EngineFileError):
        raise
    except EngineError as error:
        if not isinstance(target.place, FilePlace):
            raise
        if worded(str(error)) not in told_of_file:
            yield {"collection": None, "key": None, "problem": worded(str(error))}
        return
    for name in names:
        told: set[str] = set()
        try:
            for row in _damaged_in(target.of(name), progress):
                told.add(row["key"])
                yield row
        except EngineBusyError:
            raise
        except EngineError as error:
            yield {"collection": name, "key": None, "problem": worded(str(error))}
            yield from _unreadable_in(target.of(name), told)


def _damaged_in(target: Target, progress: Progress) -> Iterator[dict[str, Any]]:
    with target.opened() as backend, closing(backend.scan("", values=True)) as pages:
        for page in pages:
            progress.add(len(page))
            for key, stored in page:
                if isinstance(stored, Damaged):
                    yield {"collection": target.options.collection, "key": key, "problem": stored.reason}


def _unreadable_in(target: Target, told: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the keys that cannot be read, asking for one after the other: on damaged pages, or behind these."""
    with suppress(EngineError), target.opened() as backend, closing(backend.scan("", values=False)) as pages:
        for page in pages:
            for key, _ in page:
                try:
                    (stored,) = backend.get_many([key])
                except EngineError:
                    yield {"collection": target.options.collection, "key": key, "problem": "its page is damaged"}
                    continue
                if isinstance(stored, Damaged) and key not in told:
                    yield {"collection": target.options.collection, "key": key, "problem": stored.reason}


def _compact(arguments: Arguments, output: Output) -> None:
    """Give the space back that a file does not use, while others use it.

    Readers go on, writers wait as long as it takes. For the time being it needs the file's size again, beside it and
    where temporary files are. Prints the bytes before and after. The file shrinks later where somebody is in the middle
    of a read.
    """
    target = target_of(arguments)
    if not isinstance(target.place, FilePlace):
        raise ConfigError("Only a file can be compacted: give sqlite:PATH. See lckv compact --help.")
    require_file(target.place)
    if arguments.dry_run:
        facts: dict[str, Any] = target.place.facts(target.options)
        with target.place.sqlite_for(target.options) as engine:
            engine.check_writable()
        free = facts["pages_free"] * facts["page_bytes"]
        output.note(f"about {free:,} of {facts['file_bytes']:,} bytes would be given back")
        return
    before, after = compact(target.place, target.options)
    output.facts({"bytes_before": before, "bytes_after": after})


_ONE: Final = Option("--collection", "This one only.", "NAME")

COMMANDS: Final = (
    Command("info", _info, "lckv info --db sqlite:kv.db", options=(*PLACE, _ONE)),
    Command("check", _check, "lckv check --db sqlite:kv.db", options=(*PLACE, _ONE)),
    Command("compact", _compact, "lckv compact --db sqlite:kv.db", options=(*PLACE, DRY_RUN)),
)
