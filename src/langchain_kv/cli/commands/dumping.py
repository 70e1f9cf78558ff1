"""``lckv dump`` and ``load``: values as lines of JSON, and back."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import BinaryIO, Final

from langchain_kv._version import __version__
from langchain_kv.cli.moving import AS_BYTES, ON_EXISTS, backend_of, failed_after, reading, told
from langchain_kv.cli.notes import PARTLY, fail
from langchain_kv.cli.options import DRY_RUN, PREFIX, STORE
from langchain_kv.cli.output import Output
from langchain_kv.cli.parsing import Argument, Arguments, Command, Option, number
from langchain_kv.cli.stopping import cleaning_up_when_stopped
from langchain_kv.cli.targets import target_of
from langchain_kv.errors import StoreError, UsageError
from langchain_kv.moving.copying import pages_of
from langchain_kv.moving.dumps import Dump, dump_values
from langchain_kv.moving.loading import check_dump, load_values
from langchain_kv.moving.tally import Pace, Tally
from langchain_kv.moving.writing import OnExists, Writer

__all__ = ["COMMANDS"]


def _dump(arguments: Arguments, output: Output) -> int | None:
    """Write all values as lines of JSON, with their kinds and expiry.

    The first line says what it is, the last one how many values there are, with a checksum: lckv load finds what was
    cut off or changed. In no promised order.
    """
    target = target_of(arguments)
    header = {
        "source": target.place.shown,
        "keyspace": target.options.keyspace,
        "collection": target.options.collection,
        "namespace": list(target.labels),
        "prefix": arguments.prefix or "",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": f"lckv {__version__}",
    }
    tally = Tally()
    with reading(target) as backend, output.progress("values") as progress:
        dump_values(
            pages_of(backend, arguments.prefix or "", bytes_only=arguments.bytes),
            output.line,
            header,
            tally,
            watch=lambda so_far: progress.add(so_far.read - progress.done),
        )
    return told(output, tally)


def _load(arguments: Arguments, output: Output) -> int | None:
    """Store the values of a dump.

    A file is checked first: of one that was changed nothing is loaded. Of one that is cut off all that is there is,
    with exit code 5. What is there equal is left: repeat what failed.
    """
    target = target_of(arguments)
    with _opened(arguments.file) as (file, size_bytes), backend_of(target) as backend:
        if size_bytes is not None:
            check_dump(file)
        dump = Dump(file)
        writer = Writer(backend, arguments.on_exists or OnExists.FAIL, may_repeat=True, dry_run=arguments.dry_run)
        try:
            with cleaning_up_when_stopped(), output.progress("bytes", size_bytes) as progress:
                loaded = load_values(
                    dump,
                    writer,
                    prefix=arguments.prefix or "",
                    pace=Pace(arguments.max_rate),
                    watch=lambda read: progress.add(read.bytes_read - progress.done),
                )
        except StoreError as error:
            return failed_after(
                output, writer.tally, error, "What is there already is left when the command is repeated."
            )
        except BaseException:
            output.counts(**writer.tally.counts)
            raise
    code = told(output, writer.tally, dry_run=arguments.dry_run)
    if not loaded.problem:
        return code
    name = "TRUNCATED" if loaded.is_cut else "DAMAGED_DUMP"
    return fail(f"The dump is not whole: {loaded.problem}", PARTLY, name, as_json=output.as_json)


@contextmanager
def _opened(name: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """Open a file, or stdin; yield it with its size, None where it can be read only once.

    Raises:
        UsageError: it cannot be read.
    """
    if name == "-":
        if sys.stdin is None:
            raise UsageError("There is no stdin to read the dump from: give a file.")
        yield sys.stdin.buffer, None
        return
    try:
        file = open(name, "rb")  # noqa: SIM115 - closed below, whatever the block raises
    except (OSError, ValueError) as error:
        raise UsageError(f"Cannot read the dump {name!r}: {getattr(error, 'strerror', None) or error}.") from None
    with file:
        found = os.fstat(file.fileno())
        yield file, found.st_size if stat.S_ISREG(found.st_mode) else None


COMMANDS: Final = (
    Command(
        "dump",
        _dump,
        "lckv dump --db sqlite:kv.db --collection kv > kv.ndjson",
        options=(*STORE, PREFIX, AS_BYTES),
    ),
    Command(
        "load",
        _load,
        "lckv load kv.ndjson --db redis://localhost --collection kv",
        arguments=(Argument("FILE|-"),),
        options=(
            *STORE,
            PREFIX,
            ON_EXISTS,
            Option("--max-rate", "At most so many values a second.", "N", convert=number(1)),
            DRY_RUN,
        ),
    ),
)
