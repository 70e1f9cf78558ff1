"""The commands of ``lckv``, one short function each. What a command needs is imported when it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from langchain_kv.cli.values import Form

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keep values by key in a file, in Astra DB or any Data API; serve a file as a Data API.\n\n"
    "Exit codes: 0 done, 1 a key is missing, 2 wrong usage, 3 refused by the service or the file, 4 the service cannot"
    " be reached, 5 stdout cannot be written.",
)

Keys = Annotated[list[str], typer.Argument(metavar="KEY", show_default=False)]
Database = Annotated[
    str,
    typer.Option(
        "--db",
        metavar="URL",
        envvar=["LCKV_URL", "ASTRA_DB_API_ENDPOINT"],
        show_default=False,
        help="sqlite:PATH, cassandra://..., or https://... / http://... of a Data API.",
    ),
]
Collection = Annotated[str, typer.Option(metavar="NAME", show_default=False, help="The store's collection.")]
Keyspace = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", show_default=False, help="Else ASTRA_DB_KEYSPACE of the environment, else default_keyspace."
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        metavar="@FILE",
        show_default=False,
        help="A file that holds the token; else ASTRA_DB_APPLICATION_TOKEN of the environment, for Upstash"
        " UPSTASH_REDIS_REST_TOKEN.",
    ),
]
Text = Annotated[bool, typer.Option("--text", help="The value is text, as it is.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        show_default=False,
        help="How long to go on trying without any success; 60 if not given. Over HTTP only.",
    ),
]
AsBytes = Annotated[bool, typer.Option("--bytes", help="The value is bytes, as they are (a byte store's value).")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from langchain_kv import __version__

        typer.echo(f"lckv {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    *,
    db: Annotated[
        str | None,
        typer.Option(metavar="URL", show_default=False, help="sqlite:PATH, or memory: (the default: gone at the end)."),
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Any address but loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="0 takes any free one.")] = 8181,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="@FILE",
            show_default=False,
            help="A file that holds the token clients must send; else LCKV_TOKEN of the environment; on loopback, else"
            " one is made and printed on stderr.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Also take what clients make of this user and --password.",
        ),
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(
            metavar="@FILE", show_default=False, help="A file that holds it; else LCKV_PASSWORD of the environment."
        ),
    ] = None,
) -> None:
    """Serve a file as a Data API.

    Prints "listening on http://HOST:PORT" on stdout once it answers; SIGTERM or SIGINT ends it.
    """
    from langchain_kv.cli.serving import serve_until_stopped

    serve_until_stopped(db, host, port, token=token, user=user, password=password)


@app.command()
def backup(
    database: Annotated[str, typer.Argument(metavar="DB", show_default=False, help="sqlite:PATH")],
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False, help="The path of the copy.")],
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a file of that name.")] = False,
) -> None:
    """Copy a file of values, as of one moment, while others write to it.

    The copy appears when it is complete and was checked; it is a store's file itself. With an error, or when the
    command is told to stop, nothing is left. lckv restore puts it back.
    """
    from langchain_kv.cli.stopping import cleaning_up_when_stopped
    from langchain_kv.places.backups import back_up
    from langchain_kv.places.schemes import parse_url

    _require_path(file)
    with cleaning_up_when_stopped():
        back_up(parse_url(database), file, replace=replace)


@app.command()
def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False, help="The backup; it stays as it is.")],
    database: Annotated[str, typer.Argument(metavar="DB", show_default=False, help="sqlite:PATH; need not exist.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where DB is not recognised as a file of values.")
    ] = False,
) -> None:
    """Put a backup in the place of a file of values, while others use it.

    The backup is copied and checked first; then it takes the file's place in one moment, and what the file was goes.
    Programs that have it open, lckv serve among them, go on with the backup. With an error all stays as it was.
    """
    from langchain_kv.cli.stopping import cleaning_up_when_stopped
    from langchain_kv.places.backups import restore as put_back
    from langchain_kv.places.schemes import parse_url

    _require_path(file)
    with cleaning_up_when_stopped():
        put_back(file, parse_url(database), replace=replace)


def _require_path(file: str) -> None:
    from langchain_kv.errors import ConfigError

    if file.startswith("sqlite:"):
        raise ConfigError(f"FILE is a path, not a URL: write {file.removeprefix('sqlite:')}.")


@app.command()
def get(
    keys: Keys,
    *,
    db: Database,
    collection: Collection,
    keyspace: Keyspace = None,
    token: Token = None,
    timeout: Timeout = None,
    text: Text = False,
    as_bytes: AsBytes = False,
) -> None:
    """Print values.

    Of one key the value as JSON; of several an object {"key": ..., "value": ...} a line. With --text or --bytes the
    value as it is, without a line end. A stored null cannot be told from a missing key: both end with exit code 1,
    after the others are printed.
    """
    from langchain_kv.cli.notes import MISSING
    from langchain_kv.cli.values import Form, emit, json_line, printed
    from langchain_kv.errors import ConfigError, DamagedValueError

    form = Form.of(text=text, as_bytes=as_bytes)
    if form is not Form.JSON and len(keys) > 1:
        raise ConfigError(f"--{form.value} prints one value: give one key, or leave it out.")
    damaged: DamagedValueError | None = None
    with _open_store(form, db, collection, keyspace=keyspace, token=token, timeout_s=timeout) as store:
        try:
            values = dict(zip(keys, store.mget(keys), strict=True))
        except DamagedValueError as error:
            values, damaged = error.values, error
    found = [key for key in keys if values.get(key) is not None]
    for key in found:
        emit(json_line({"key": key, "value": values[key]}) if len(keys) > 1 else printed(form, key, values[key]))
    if damaged is not None:
        raise damaged
    if len(found) < len(keys):
        _note_missing([key for key in keys if values.get(key) is None])
        raise typer.Exit(MISSING)


@app.command("set")
def set_value(
    key: Annotated[str, typer.Argument(show_default=False)],
    value: Annotated[
        str,
        typer.Argument(
            metavar="VALUE|-|@FILE", show_default=False, help="The value as JSON, - for stdin, @FILE for a file."
        ),
    ],
    *,
    db: Database,
    collection: Collection,
    keyspace: Keyspace = None,
    token: Token = None,
    timeout: Timeout = None,
    text: Text = False,
    as_bytes: AsBytes = False,
) -> None:
    """Store a value.

    Replaces what is there, and makes the collection where it is missing. Text that is "-" or starts with "@" is given
    on stdin.
    """
    from langchain_kv.cli.values import Form, read_value

    form = Form.of(text=text, as_bytes=as_bytes)
    given = read_value(form, value)
    with _open_store(form, db, collection, keyspace=keyspace, token=token, timeout_s=timeout, creates=True) as store:
        store.mset([(key, given)])


@app.command("del")
def delete(
    keys: Keys,
    *,
    db: Database,
    collection: Collection,
    keyspace: Keyspace = None,
    token: Token = None,
    timeout: Timeout = None,
) -> None:
    """Remove keys.

    A key that is not there is no error.
    """
    from langchain_kv.cli.values import Form

    with _open_store(Form.JSON, db, collection, keyspace=keyspace, token=token, timeout_s=timeout) as store:
        store.mdelete(keys)


@app.command("keys")
def list_keys(
    *,
    db: Database,
    collection: Collection,
    prefix: Annotated[
        str, typer.Option(metavar="PREFIX", show_default=False, help="Only keys that start with it.")
    ] = "",
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, show_default=False, help="At most so many.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Each key as a JSON text, for keys that hold line ends.")
    ] = False,
    keyspace: Keyspace = None,
    token: Token = None,
    timeout: Timeout = None,
) -> None:
    """Print the keys, one a line.

    In no promised order.
    """
    from langchain_kv.cli.values import Form, emit, json_line

    with _open_store(Form.JSON, db, collection, keyspace=keyspace, token=token, timeout_s=timeout) as store:
        for key in islice(store.yield_keys(prefix=prefix), limit):
            emit(json_line(key) if as_json else key.encode() + b"\n")


@contextmanager
def _open_store(
    form: Form,
    db: str,
    collection: str,
    *,
    keyspace: str | None,
    token: str | None,
    timeout_s: float | None,
    creates: bool = False,
) -> Iterator[Any]:
    from langchain_kv import ConfigError, EngineError, KVByteStore, KVStore, SetupMode, UnknownCollectionError
    from langchain_kv.cli.values import Form, read_secret
    from langchain_kv.places.files import FilePlace
    from langchain_kv.places.memory import MemoryPlace
    from langchain_kv.places.schemes import parse_url

    place = parse_url(db)
    if isinstance(place, MemoryPlace):
        raise ConfigError("--db memory: lives in one process and would be gone with this one: give sqlite:PATH.")
    if timeout_s is not None and not timeout_s > 0:
        raise ConfigError(f"--timeout takes a number of seconds above 0, got {timeout_s:g}.")
    kind = KVByteStore if form is Form.BYTES else KVStore
    store = kind(
        collection,
        place,
        token=None if token is None else read_secret("--token", token),
        keyspace=keyspace,
        deadline_s=timeout_s,
        # ASYNC makes the collection at first use, so after the key and the value were found good.
        setup_mode=SetupMode.ASYNC if creates else SetupMode.OFF,
    )
    try:
        with store:
            yield store
    except UnknownCollectionError:
        if isinstance(place, FilePlace) and not os.path.lexists(place.path):
            raise EngineError(f"There is no file {place.path}: check --db, or have lckv set make it.") from None
        raise


def _note_missing(keys: list[str]) -> None:
    from langchain_kv.cli.notes import note
    from langchain_kv.values.keys import shown

    names = ", ".join(shown(key) for key in keys[:5])
    more = f" and {len(keys) - 5:,} more" if len(keys) > 5 else ""
    note(f"no value for {names}{more} (missing, or null)")
