"""``lckv serve``: an embedded engine behind the local server."""

from __future__ import annotations

import ipaddress
import os
import secrets

from langchain_kv.backends.opening import acquire_engine, release_engine
from langchain_kv.cli.main import note
from langchain_kv.cli.values import read_secret
from langchain_kv.errors import ConfigError
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.secret import Secret
from langchain_kv.targets import Target, parse_target

__all__ = ["serve_until_stopped"]

TOKEN_VARIABLE = "LCKV_TOKEN"  # noqa: S105 - the name of a variable, no secret


def serve_until_stopped(db: str | None, host: str, port: int, token_option: str | None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        db: ``sqlite:PATH`` or ``memory:NAME``; None is this process's memory.
        host: the address to listen on; any but loopback needs a token.
        port: 0 takes any free one.
        token_option: ``@FILE``, or None for ``LCKV_TOKEN``.

    Raises:
        ConfigError: one of these is wrong, or the address cannot be listened on.
        EngineError: the file cannot be opened.
    """
    try:
        from langchain_kv.server.running import serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"Serving needs {error.name}: pip install 'langchain-kv[cli]'.") from None

    target = _embedded("memory:" if db is None else db)
    if db is None:
        note("no --db given: everything is kept in memory and gone when this process ends")
    token = _token(token_option, host)
    engine = acquire_engine(target)
    try:
        # A file that cannot be opened is an error here, not of the first request.
        engine.create_keyspace(target.keyspace or DEFAULT_KEYSPACE)
        if token is None:
            token = Secret(secrets.token_urlsafe(24))
            note(f"no token given, made one for this run: {token}")
        serve(engine, token, host, port, _announce)
    finally:
        release_engine(engine)


def _embedded(url: str) -> Target:
    target = parse_target(url)
    if target.kind == "dataapi":
        raise ConfigError("--db: lckv serve keeps values itself: give sqlite:PATH or memory:, not the URL of a server.")
    return target


def _token(option: str | None, host: str) -> str | None:
    if option is not None:
        return read_secret("--token", option)
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token and not _is_loopback(host):
        raise ConfigError(
            f"Listening on {host} needs a token, as others can reach it: give --token @FILE or set {TOKEN_VARIABLE}."
        )
    return Secret(token) if token else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _announce(url: str) -> None:
    print("listening on", url, flush=True)
