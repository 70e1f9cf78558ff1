"""``lckv serve``: an embedded engine behind the local server."""

from __future__ import annotations

import ipaddress
import os
import secrets

from langchain_kv.cli.notes import note
from langchain_kv.cli.values import read_secret
from langchain_kv.errors import ConfigError
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.places.embedded import EmbeddedPlace, release_engine
from langchain_kv.places.schemes import parse_url
from langchain_kv.values.secret import Secret

__all__ = ["serve_until_stopped"]

TOKEN_VARIABLE = "LCKV_TOKEN"  # noqa: S105 - the name of a variable, no secret
PASSWORD_VARIABLE = "LCKV_PASSWORD"  # noqa: S105


def serve_until_stopped(
    db: str | None, host: str, port: int, *, token: str | None, user: str | None, password: str | None
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        db: ``sqlite:PATH`` or ``memory:NAME``; None is this process's memory.
        host: the address to listen on; any but loopback needs a token.
        port: 0 takes any free one.
        token: ``@FILE``, or None for ``LCKV_TOKEN``.
        user: whose token, as clients make it of a user and a password, is taken, too.
        password: ``@FILE``, or None for ``LCKV_PASSWORD``.

    Raises:
        ConfigError: one of these is wrong, or the address cannot be listened on.
        EngineError: the file cannot be opened.
    """
    try:
        from langchain_kv.server.http.app import DataAPI
        from langchain_kv.server.http.running import serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"Serving needs {error.name}: pip install 'langchain-kv[cli]'.") from None

    place = _embedded("memory:" if db is None else db)
    if db is None:
        note("no --db given: everything is kept in memory and gone when this process ends")
    tokens = _tokens(host, token, user, password)
    engine = place.acquire_engine()
    try:
        # A file that cannot be opened is an error here, not of the first request.
        engine.create_keyspace(place.keyspace or DEFAULT_KEYSPACE)
        if not tokens:
            tokens = [Secret(secrets.token_urlsafe(24))]
            note(f"no token given, made one for this run: {tokens[0]}")
        serve(DataAPI(engine, *tokens), host, port, _announce)
    finally:
        release_engine(engine)


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
