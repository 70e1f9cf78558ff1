"""``lckv copy`` and ``diff``: from one target to another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from langchain_kv.backends.base import Backend
from langchain_kv.cli.moving import (
    AS_BYTES,
    ON_EXISTS,
    backend_of,
    failed_after,
    reading,
    refuse_to_verify_nothing,
    told,
)
from langchain_kv.cli.notes import MISSING
from langchain_kv.cli.options import (
    COLLECTION,
    DRY_RUN,
    KEYSPACE,
    NAMESPACE,
    PREFIX,
    TO_COLLECTION,
    TO_TOKEN,
    TOKEN,
    VERIFY,
)
from langchain_kv.cli.output import Output
from langchain_kv.cli.parsing import Argument, Arguments, Command, Option, number
from langchain_kv.cli.stopping import cleaning_up_when_stopped
from langchain_kv.cli.targets import Target
from langchain_kv.errors import ConfigError, StoreError
from langchain_kv.moving.checkpoints import Checkpoint
from langchain_kv.moving.comparing import Comparison, compare
from langchain_kv.moving.copying import copy_values
from langchain_kv.moving.tally import Pace
from langchain_kv.moving.writing import OnExists, Writer
from langchain_kv.values.namespaces import namespace_prefix

__all__ = ["COMMANDS"]


def _copy(arguments: Arguments, output: Output) -> int | None:
    """Copy values with kinds and expiry; what is there equal is left, none deleted."""
    refuse_to_verify_nothing(arguments)
    source, target = _both(arguments)
    checkpoint = None
    if arguments.resume is not None and not arguments.dry_run:
        checkpoint = Checkpoint(arguments.resume, _what(arguments, source, target))
    prefix = arguments.prefix or ""
    with backend_of(target) as to, reading(source) as from_:
        writer = Writer(to, arguments.on_exists or OnExists.FAIL, bytes_only=arguments.bytes, dry_run=arguments.dry_run)
        how_to_go_on = "What is there already is left when the command is repeated."
        try:
            with cleaning_up_when_stopped(), output.progress("values") as progress:
                copy_values(
                    from_,
                    writer,
                    prefix=prefix,
                    bytes_only=arguments.bytes,
                    pace=Pace(arguments.max_rate),
                    checkpoint=checkpoint,
                    watch=lambda tally: progress.add(tally.read - progress.done),
                )
        except StoreError as error:
            return failed_after(output, writer.tally, error, _going_on(checkpoint) or how_to_go_on)
        except BaseException:
            output.counts(**writer.tally.counts)
            output.note(f"stopped. {_going_on(checkpoint) or how_to_go_on}")
            raise
        code = told(output, writer.tally, dry_run=arguments.dry_run)
        return code or (_verified(from_, to, arguments, output) if arguments.verify else None)


def _both(arguments: Arguments) -> tuple[Target, Target]:
    """Return what the arguments name: the left, or where from, and the right, or where to.

    Raises:
        ConfigError: they are one.
    """
    common: dict[str, Any] = {"labels": arguments.namespace}
    source = Target.named(
        getattr(arguments, "from"), arguments.collection, keyspace=arguments.keyspace, token=arguments.token, **common
    )
    target = Target.named(
        arguments.to,
        arguments.to_collection or arguments.collection,
        keyspace=arguments.to_keyspace or arguments.keyspace,
        token=arguments.to_token or (arguments.token if arguments.to == getattr(arguments, "from") else None),
        **common,
    )
    if _name(source) == _name(target):
        raise ConfigError("FROM and TO are one collection of one target: give another, or --to-collection.")
    return source, target


def _name(target: Target) -> tuple[str, str, str]:
    return target.place.identity, target.options.keyspace, target.options.collection


def _what(arguments: Arguments, source: Target, target: Target) -> dict[str, str]:
    """Return in words what is copied where."""
    return {
        "from": ", ".join(_name(source)),
        "to": ", ".join(_name(target)),
        "prefix": namespace_prefix(arguments.namespace) + (arguments.prefix or ""),
    }


def _going_on(checkpoint: Checkpoint | None) -> str:
    if checkpoint is None or not checkpoint.exists:
        return ""
    return f"How far it came is in {checkpoint.path}: repeat the command to go on from there."


def _verified(source: Backend, target: Backend, arguments: Arguments, output: Output) -> int | None:
    """Compare what was copied; return the exit code."""
    comparison = Comparison()
    with output.progress("values") as progress:
        found = compare(
            source,
            target,
            comparison,
            prefix=arguments.prefix or "",
            both_ways=False,
            bytes_only=arguments.bytes,
            watch=lambda so_far: progress.add(so_far.read - progress.done),
        )
        wrong = [difference.key for difference in found]
    output.note(f"verified: {comparison.same:,} the same, {len(wrong):,} not")
    return MISSING if wrong else None


def _diff(arguments: Arguments, output: Output) -> int | None:
    """Compare two targets: values, their kinds, and when they expire.

    A line for each key that is not the same: only-left, only-right, or differ, and in what. Exit code 1 where there
    are any. Exact in the memory of a page, whatever the order of keys.
    """
    left, right = _both(arguments)
    comparison = Comparison()

    def rows() -> Iterator[dict[str, Any]]:
        found = compare(
            one,
            other,
            comparison,
            prefix=arguments.prefix or "",
            bytes_only=arguments.bytes,
            watch=lambda so_far: progress.add(so_far.read - progress.done),
        )
        for difference in found:
            parts = ", ".join(difference.parts) if output.is_for_people else list(difference.parts)
            yield {"difference": difference.where, "key": difference.key, "in": parts}

    with reading(left) as one, reading(right) as other, output.progress("values") as progress:
        output.rows(rows(), ("difference", "key", "in"))
    output.counts(**comparison.counts)
    return None if comparison.same == comparison.read else MISSING


_TO: Final = (
    TO_COLLECTION,
    KEYSPACE,
    Option("--to-keyspace", "That of TO; else the same.", "NAME"),
    NAMESPACE,
    TOKEN,
    TO_TOKEN,
)

COMMANDS: Final = (
    Command(
        "copy",
        _copy,
        "lckv copy sqlite:kv.db redis://localhost --collection kv --resume r",
        arguments=(Argument("FROM"), Argument("TO")),
        options=(
            COLLECTION,
            *_TO,
            PREFIX,
            ON_EXISTS,
            Option("--resume", "Where to note how far it is; removed at the end.", "FILE"),
            VERIFY,
            Option("--max-rate", "At most so many values a second.", "N", convert=number(1)),
            AS_BYTES,
            DRY_RUN,
        ),
    ),
    Command(
        "diff",
        _diff,
        "lckv diff sqlite:kv.db redis://localhost --collection kv",
        arguments=(Argument("FROM"), Argument("TO")),
        options=(COLLECTION, *_TO, PREFIX, AS_BYTES),
    ),
)
