"""``lckv get``, ``set`` and ``del``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import Any, Final

from langchain_kv.backends.base import Backend, Damaged, Stored
from langchain_kv.cli.expiry import moment_after, ttl
from langchain_kv.cli.given import Form, read_value
from langchain_kv.cli.notes import MISSING, fail
from langchain_kv.cli.options import BYTES, DRY_RUN, PREFIX, STORE, TEXT, YES
from langchain_kv.cli.output import Output
from langchain_kv.cli.parsing import Argument, Arguments, Command, Option
from langchain_kv.cli.showing import COLUMNS, exact, row_of, shown_to_people, value_in
from langchain_kv.cli.table import printable
from langchain_kv.cli.targets import key_rule, target_of
from langchain_kv.errors import ConfigError, DamagedValueError, UnknownCollectionError, UnknownKeyspaceError
from langchain_kv.values.codecs import UndecodableError, encode_json, exact_bytes
from langchain_kv.values.keys import check_key, check_keys, shown
from langchain_kv.values.lenient import exact_numbers
from langchain_kv.values.records import Kind, Record

__all__ = ["COMMANDS"]


def _get(arguments: Arguments, output: Output) -> int | None:
    """Print values.

    Of one key the value as it is stored: JSON, or bytes without a line end; a terminal shows it readably. Of several,
    an object {"key": ..., "value": ...} a line, of bytes "base64". A stored null cannot be told from a missing key:
    both end with exit code 1, after the others.
    """
    form = Form.of(text=arguments.text, as_bytes=arguments.bytes)
    keys: list[str] = arguments.key
    if form is not None and len(keys) > 1:
        raise ConfigError(f"--{form.value} prints one value: give one key, or leave it out.")
    with target_of(arguments).opened() as backend, exact_numbers():
        unique = check_keys(dict.fromkeys(keys), key_rule(backend))
        stored = dict(zip(unique, backend.get_many(unique), strict=True))
    values, damaged = _decoded(form, stored)
    found = [key for key in keys if key in values]
    if len(keys) > 1 or output.as_json:
        output.rows((row_of(key, values[key], stored[key], output) for key in found), COLUMNS)
    for key in found if len(keys) == 1 and not output.as_json else ():
        data = exact(form, key, values[key])
        output.write(shown_to_people(form, values[key]) + "\n" if output.is_for_people else data)
    _raise_damaged(damaged)
    missing = [key for key in unique if key not in values]
    return _tell_missing(missing, output) if missing else None


def _decoded(form: Form | None, stored: dict[str, Stored | None]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values that are there, and why the others cannot be read, by key."""
    values: dict[str, Any] = {}
    damaged: dict[str, str] = {}
    for key, one in stored.items():
        if isinstance(one, Damaged):
            damaged[key] = one.reason
        elif one is not None and one.value is not None:
            try:
                values[key] = value_in(form, one)
            except UndecodableError as error:
                damaged[key] = str(error)
    return values, damaged


def _raise_damaged(damaged: dict[str, str]) -> None:
    if damaged:
        told = "; ".join(f"{shown(key)}: {reason}" for key, reason in list(damaged.items())[:5])
        raise DamagedValueError(f"{len(damaged):,} stored value(s) cannot be read: {told}.", errors=damaged, values={})


def _tell_missing(keys: Sequence[str], output: Output) -> int:
    names = ", ".join(shown(key) for key in keys[:5])
    more = f" and {len(keys) - 5:,} more" if len(keys) > 5 else ""
    return fail(f"no value for {names}{more} (missing, or null)", MISSING, "MISSING", as_json=output.as_json)


def _set(arguments: Arguments, output: Output) -> None:
    """Store a value.

    It is JSON, unless an option says otherwise. What is there is replaced, and the collection is made where it is
    missing. Text that is - or begins with @ is given on stdin, whose last line end belongs to it (use printf, not
    echo).
    """
    given = read_value(Form.of(text=arguments.text, as_bytes=arguments.bytes), arguments.value)
    key, expires_at_ms = arguments.key, moment_after(arguments.ttl)
    with target_of(arguments).opened() as backend:
        check_key(key, key_rule(backend))
        if isinstance(given, bytes):
            record = Record(key, exact_bytes(given, key), Kind.BYTES, expires_at_ms)
        else:
            record = encode_json(key, given, expires_at_ms)
        if arguments.dry_run:
            backend.check_writable()
            with suppress(UnknownCollectionError, UnknownKeyspaceError):
                backend.check_many([record])
            output.note(f"would store {len(record.payload):,} bytes under {shown(key)}")
            return
        backend.open()
        backend.put_many([record])


def _del(arguments: Arguments, output: Output) -> None:
    """Remove keys, or all keys with a prefix.

    A key that is not there is no error. With --prefix it lists the keys first, and removes nothing without --yes.
    """
    keys: list[str] = arguments.key
    if bool(keys) == (arguments.prefix is not None):
        raise ConfigError("Give either KEY... or --prefix. See lckv del --help.")
    with target_of(arguments).opened() as backend:
        if arguments.prefix is not None:
            _delete_prefix(backend, arguments, output)
            return
        unique = check_keys(dict.fromkeys(keys), key_rule(backend))
        if arguments.dry_run:
            there = [key for key, one in zip(unique, backend.get_many(unique), strict=True) if one is not None]
            backend.check_writable()
            output.note(f"would remove {len(there):,} of {len(unique):,} keys")
            return
        backend.delete_many(unique)


def _delete_prefix(backend: Backend, arguments: Arguments, output: Output) -> None:
    if not arguments.prefix:
        raise ConfigError("--prefix is empty, which means every key: use lckv clear for that.")
    if arguments.dry_run:
        for at, key in enumerate(_keys(backend, arguments.prefix)):
            if not at:
                backend.check_writable()
            output.record(key) if output.as_json else output.write(
                (printable(key) if output.is_for_people else key) + "\n"
            )
        return
    if not arguments.yes:
        count = backend.count(arguments.prefix)
        raise ConfigError(
            f"Keys that begin with {shown(arguments.prefix)}: {count:,}. Nothing was removed: give --yes to remove"
            " them, or --dry-run to see them."
        )
    with output.progress() as progress, closing(backend.scan(arguments.prefix, values=False)) as pages:
        for page in pages:
            backend.delete_many([key for key, _ in page])
            progress.add(len(page))
    output.counts(removed=progress.done)


def _keys(backend: Backend, prefix: str) -> Iterator[str]:
    with closing(backend.scan(prefix, values=False)) as pages:
        for page in pages:
            yield from (key for key, _ in page)


_TTL: Final = Option("--ttl", "It expires so long from now: 90, 30s, 15m, 12h or 7d.", "TIME", convert=ttl)

COMMANDS: Final = (
    Command(
        "get",
        _get,
        "lckv get greeting --db sqlite:kv.db --collection notes",
        (Argument("KEY", many=True),),
        (*STORE, TEXT, BYTES),
    ),
    Command(
        "set",
        _set,
        "lckv set greeting '\"hello\"' --db sqlite:kv.db --collection notes",
        (Argument("KEY"), Argument("VALUE|-|@FILE")),
        (*STORE, TEXT, BYTES, _TTL, DRY_RUN),
    ),
    Command(
        "del",
        _del,
        "lckv del --prefix old/ --yes --db sqlite:kv.db --collection notes",
        (Argument("KEY", many=True, required=False),),
        (*STORE, PREFIX, DRY_RUN, YES),
    ),
)
