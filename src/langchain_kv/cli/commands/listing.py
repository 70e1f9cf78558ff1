"""``lckv keys``, ``items`` and ``count``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any, Final

from langchain_kv.backends.base import Backend, Damaged, Stored
from langchain_kv.cli.notes import MISSING, fail
from langchain_kv.cli.options import LIMIT, PREFIX, STORE
from langchain_kv.cli.output import Output
from langchain_kv.cli.parsing import Arguments, Command, Option
from langchain_kv.cli.showing import COLUMNS, row_of
from langchain_kv.cli.table import printable
from langchain_kv.cli.targets import key_rule, target_of
from langchain_kv.errors import ConfigError
from langchain_kv.values.keys import check_key, shown
from langchain_kv.values.lenient import exact_numbers

__all__ = ["COMMANDS", "checked_prefix"]


def checked_prefix(backend: Backend, prefix: str | None) -> str:
    """Return a prefix of keys, empty for all of them.

    Raises:
        InvalidKeyError: no key of the target begins so.
    """
    return check_key(prefix, key_rule(backend)) if prefix else ""


def _keys(arguments: Arguments, output: Output) -> None:
    """Print the keys, one a line.

    In no promised order. Keys that hold line ends can be told apart with --json (each as a JSON text) or -0 (each ends
    with a zero byte, as xargs -0 reads them).
    """
    if arguments.null and output.as_json:
        raise ConfigError("-0 and --json exclude each other: give one. See lckv keys --help.")
    end = "\0" if arguments.null else "\n"
    with target_of(arguments).opened() as backend:
        prefix = checked_prefix(backend, arguments.prefix)
        for key, _ in islice(_scanned(backend, prefix, values=False), arguments.limit):
            if output.as_json:
                output.record(key)
            else:
                output.write((printable(key) if output.is_for_people else key) + end)


def _items(arguments: Arguments, output: Output) -> int | None:
    """Print the keys with their values, one a line.

    As JSON an object {"key": ..., "value": ...} a line, of bytes "base64", with "expires_at" where it expires; on a
    terminal a table. In no promised order. Values that cannot be read are named at the end, with exit code 1.
    """
    damaged: list[str] = []

    def rows() -> Iterator[dict[str, Any]]:
        pairs = islice(_scanned(backend, checked_prefix(backend, arguments.prefix), values=True), arguments.limit)
        for key, stored in pairs:
            if stored is None or isinstance(stored, Damaged):
                damaged.append(key)
                continue
            yield row_of(key, stored.value, stored, output)

    with target_of(arguments).opened() as backend, exact_numbers():
        output.rows(rows(), COLUMNS)
    if not damaged:
        return None
    names = ", ".join(map(shown, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
    message = f"{len(damaged):,} stored value(s) cannot be read: {names}"
    return fail(message, MISSING, "DAMAGED_VALUE", as_json=output.as_json)


def _count(arguments: Arguments, output: Output) -> None:
    """Print how many keys there are.

    What has expired does not count. Over HTTP and on Redis the keys are listed for it.
    """
    with target_of(arguments).opened() as backend:
        output.record(backend.count(checked_prefix(backend, arguments.prefix)))


def _scanned(backend: Backend, prefix: str, *, values: bool) -> Iterator[tuple[str, Stored | None]]:
    with closing(backend.scan(prefix, values=values)) as pages:
        for page in pages:
            yield from page


_NULL: Final = Option("--null", "A zero byte after each key, for xargs -0.", short="0")

COMMANDS: Final = (
    Command(
        "keys",
        _keys,
        "lckv keys -0 --db sqlite:kv.db --collection notes | xargs -0 -n 1 echo",
        options=(*STORE, PREFIX, LIMIT, _NULL),
    ),
    Command(
        "items",
        _items,
        "lckv items --db sqlite:kv.db --collection notes > notes.ndjson",
        options=(*STORE, PREFIX, LIMIT),
    ),
    Command("count", _count, "lckv count --db sqlite:kv.db --collection notes", options=(*STORE, PREFIX)),
)
