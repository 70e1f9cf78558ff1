"""``lckv serve``: an embedded engine behind the local server."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from langchain_kv.cli.main import note
from langchain_kv.cli.values import read_secret
from langchain_kv.errors import ConfigError
from langchain_kv.limits import DEFAULT_KEYSPACE
from langchain_kv.places.opening import acquire_engine, release_engine
from langchain_kv.places.targets import Target, parse_target
from langchain_kv.values.secret import Secret

if TYPE_CHECKING:
    from langchain_kv.engines.base import Engine

__all__ = ["opened", "serve_until_stopped"]

TOKEN_VARIABLE = "LCKV_TOKEN"  # noqa: S105 - the name of a variable, no secret


def serve_until_stopped(db: str | None, host: str, port: int, token_option: str | None, workers: int = 1) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        db: ``sqlite:PATH`` or ``memory:NAME``; None is this process's memory.
        host: the address to listen on; any but loopback needs a token.
        port: 0 takes any free one.
        token_option: ``@FILE``, or None for ``LCKV_TOKEN``.
        workers: how many processes serve; more than 1 only what processes can share.

    Raises:
        ConfigError: one of these is wrong, or the address cannot be listened on.
        EngineError: the file cannot be opened, or workers cannot be kept running.
    """
    try:
        from langchain_kv.server.http.running import serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"Serving needs {error.name}: pip install 'langchain-kv[cli]'.") from None

    url = "memory:" if db is None else db
    target = _embedded(url)
    if workers > 1:
        _require_shareable(target)
    elif db is None:
        note("no --db given: everything is kept in memory and gone when this process ends")
    token = _token(token_option, host)
    with opened(target) as engine:
        if token is None:
            token = Secret(secrets.token_urlsafe(24))
            note(f"no token given, made one for this run: {token}")
        if workers == 1:
            serve(engine, token, host, port, _announce)
            return
    # Closed again here: no process but a worker uses the engine, and each worker opens its own.
    from langchain_kv.cli.workers import serve_with_workers

    serve_with_workers(workers, url, token, host=host, port=port, on_ready=_announce)


@contextlib.contextmanager
def opened(target: Target) -> Iterator[Engine]:
    """Open what is served; a file that cannot be opened is an error here, not of the first request."""
    engine = acquire_engine(target)
    try:
        engine.create_keyspace(target.keyspace or DEFAULT_KEYSPACE)
        yield engine
    finally:
        release_engine(target, engine)


def _embedded(url: str) -> Target:
    target = parse_target(url)
    if target.kind == "dataapi":
        raise ConfigError("--db: lckv serve keeps values itself: give sqlite:PATH or memory:, not the URL of a server.")
    return target


def _require_shareable(target: Target) -> None:
    if sys.platform == "win32":
        raise ConfigError("--workers: processes cannot share a listening socket on Windows: leave it out.")
    if target.kind == "memory":
        raise ConfigError(
            "--workers: each worker would have a memory of its own: give --db sqlite:PATH, or leave --workers out."
        )


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
