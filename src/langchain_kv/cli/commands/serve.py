"""``lckv serve``: an embedded engine behind the local server."""

from __future__ import annotations

import ipaddress
import os
import secrets
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from langchain_kv.cli.notes import note
from langchain_kv.cli.output import Output
from langchain_kv.cli.parsing import Arguments, Command, Option, number
from langchain_kv.cli.secrets import read_secret
from langchain_kv.errors import ConfigError
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.places.embedded import EmbeddedPlace, release_engine
from langchain_kv.places.schemes import parse_url
from langchain_kv.values.secret import Secret

if TYPE_CHECKING:
    from langchain_kv.server.http.connections import Application

__all__ = ["COMMANDS"]

TOKEN_VARIABLE = "LCKV_TOKEN"  # noqa: S105 - the name of a variable, no secret
PASSWORD_VARIABLE = "LCKV_PASSWORD"  # noqa: S105


def _serve(arguments: Arguments, _: Output) -> None:
    """Serve a file as a Data API, and an explorer of it at / for a browser.

    Prints "listening on http://HOST:PORT" on stdout once it answers; SIGTERM or SIGINT ends it.
    """
    db, host = arguments.db, arguments.host
    try:
        from langchain_kv.explorer.app import Explorer
        from langchain_kv.explorer.routes import Routes
        from langchain_kv.explorer.targets import target_of_engine
        from langchain_kv.server.http.app import DataAPI
        from langchain_kv.server.http.running import serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"Serving needs {error.name}: pip install 'langchain-kv[cli]'.") from None

    place = _embedded("memory:" if db is None else db)
    if db is None:
        note("no --db given: everything is kept in memory and gone when this process ends")
    tokens = _tokens(host, arguments.token, arguments.user, arguments.password)
    engine = place.acquire_engine()
    try:
        # A file that cannot be opened is an error here, not of the first request.
        engine.create_keyspace(place.keyspace or DEFAULT_KEYSPACE)
        if not tokens:
            tokens = [Secret(secrets.token_urlsafe(24))]
            note(f"no token given, made one for this run: {tokens[0]}")
        routes = Routes(target_of_engine(place, engine), edits=arguments.explorer_edits)
        application = Explorer(routes, *tokens, inner=DataAPI(engine, *tokens))
        try:
            serve(logged(application, tokens) if arguments.log else application, host, arguments.port, _announce)
        finally:
            routes.close()
    finally:
        release_engine(engine)


def logged(application: Application, tokens: Sequence[Secret]) -> Application:
    """Return an application that tells of each request on stderr, and shows no token there."""
    from langchain_kv.server.http.access_log import AccessLog

    def write(line: str) -> None:
        with suppress(OSError, AttributeError):  # stderr was closed, or there is none: serving goes on
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    return AccessLog(application, write, tuple(tokens))


def _embedded(url: str) -> EmbeddedPlace:
    place = parse_url(url)
    if not isinstance(place, EmbeddedPlace):
        raise ConfigError("--db: lckv serve keeps values itself: give sqlite:PATH or memory:, not the URL of a server.")
    return place


def _tokens(host: str, token: str | None, user: str | None, password: str | None) -> list[Secret]:
    """Return what clients may send: the token and that of the user, as far as they are given."""
    from langchain_kv.server.http.app import login_token

    tokens = [_secret("--token", token, TOKEN_VARIABLE)]
    secret = _secret("--password", password, PASSWORD_VARIABLE, is_ascii=False)
    if user and secret:
        tokens.append(login_token(user, secret))
    elif user is not None:
        raise ConfigError(f"--user needs a name and its password: give --password @FILE or set {PASSWORD_VARIABLE}.")
    elif password is not None:
        raise ConfigError("--password needs the user that it is of: give --user NAME.")
    given = [each for each in tokens if each]
    if not given and not _is_loopback(host):
        raise ConfigError(
            f"Listening on {host} needs a token, as others can reach it: give --token @FILE or set {TOKEN_VARIABLE}, or"
            " give --user and --password @FILE."
        )
    return given


def _secret(option: str, given: str | None, variable: str, *, is_ascii: bool = True) -> Secret:
    """Return what an option's file holds, else the variable, without the white space around it; empty for nothing."""
    return Secret(
        os.environ.get(variable, "").strip() if given is None else read_secret(option, given, is_ascii=is_ascii)
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _announce(url: str) -> None:
    print("listening on", url, flush=True)


COMMANDS: Final = (
    Command(
        "serve",
        _serve,
        "lckv serve --db sqlite:kv.db --port 8181 --token @token.txt",
        options=(
            Option("--db", "sqlite:PATH, or memory: (the default: gone at the end).", "URL"),
            Option("--host", "Any address but loopback needs a token.", "ADDRESS", default="127.0.0.1"),
            Option("--port", "0 takes any free one.", "PORT", convert=number(0, 65_535), default=8181),
            Option(
                "--token",
                "A file with the token clients must send; else LCKV_TOKEN; on loopback, else one is made and printed"
                " on stderr.",
                "@FILE",
            ),
            Option("--user", "Also take what clients make of this user and --password.", "NAME"),
            Option("--password", "A file that holds it; else LCKV_PASSWORD.", "@FILE"),
            Option("--explorer-edits", "Let the explorer change and remove values, too."),
            Option("--log", "A line on stderr for each request; never a token or a value."),
        ),
    ),
)
