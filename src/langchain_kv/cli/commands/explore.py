"""``lckv explore``: a target's page in the browser."""

from __future__ import annotations

import os
import secrets
import tempfile
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from langchain_kv.cli.options import KEYSPACE, TIMEOUT, TOKEN
from langchain_kv.cli.output import Output
from langchain_kv.cli.parsing import Argument, Arguments, Command, Option, number
from langchain_kv.cli.targets import Target, require_file
from langchain_kv.errors import ConfigError
from langchain_kv.explorer.targets import Target as Explored
from langchain_kv.explorer.targets import target_of_engine, target_of_place
from langchain_kv.places.embedded import EmbeddedPlace, release_engine
from langchain_kv.runtime import threads
from langchain_kv.values.secret import Secret

__all__ = ["COMMANDS"]


def _explore(arguments: Arguments, output: Output) -> None:
    """Look at what a target holds, in the browser.

    Serves the explorer on a free port of this machine, prints its address and opens it, until Ctrl-C. It only reads,
    unless --explorer-edits is given. Without --collection the target is asked for its collections.
    """
    try:
        from langchain_kv.explorer.app import Explorer
        from langchain_kv.explorer.routes import Routes
        from langchain_kv.server.http.running import serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"Exploring needs {error.name}: pip install 'langchain-kv[cli]'.") from None

    asked = Target.named(
        arguments.url or _url_of_environment(),
        None,
        keyspace=arguments.keyspace,
        token=arguments.token,
        timeout_s=arguments.timeout,
    )
    require_file(asked.place)
    token = Secret(secrets.token_urlsafe(24))

    def announce(url: str) -> None:
        print("listening on", url, flush=True)
        output.note(f"its token, for this run: {token}")
        if not arguments.no_browser:
            # Aside, as some browsers are waited for.
            threads.start(lambda: _open(url, token, folder), "langchain-kv browser")

    with (
        tempfile.TemporaryDirectory(prefix="lckv-explore-") as folder,
        _looked_at(asked, arguments.collection or ()) as target,
    ):
        routes = Routes(target, edits=arguments.explorer_edits)
        try:
            serve(Explorer(routes, token), "127.0.0.1", arguments.port, announce)
        finally:
            routes.close()


def _url_of_environment() -> str:
    url = os.environ.get("LCKV_URL", "").strip() or os.environ.get("ASTRA_DB_API_ENDPOINT", "").strip()
    if not url:
        raise ConfigError("There is no target to look at: give its URL, or set LCKV_URL.")
    return url


@contextmanager
def _looked_at(asked: Target, names: Sequence[str]) -> Iterator[Explored]:
    """Return the target; an engine of this process is open for the length of the block."""
    if not isinstance(asked.place, EmbeddedPlace) or names:
        yield target_of_place(asked.place, asked.options, names)
        return
    place = asked.place.with_options(asked.options)
    engine = place.acquire_engine()
    try:
        yield target_of_engine(place, engine)._replace(url=place.url_shown, keyspace=asked.options.keyspace)
    finally:
        release_engine(engine)


def _open(url: str, token: str, folder: str) -> None:
    """Have the browser go to the page with the token.

    By way of a file that only its owner can read: what stands on a browser's command line, everybody on this machine
    can see. The page takes the token out of its address at once.
    """
    page = Path(folder, "open.html")
    page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={url}/#token={token}">')
    webbrowser.open(page.as_uri())


COMMANDS: Final = (
    Command(
        "explore",
        _explore,
        "lckv explore redis://localhost --collection sessions",
        arguments=(Argument("URL", required=False),),
        options=(
            Option("--collection", "Show this one; repeated for more.", "NAME", repeated=True),
            KEYSPACE,
            TOKEN,
            TIMEOUT,
            Option("--port", "0, the default, takes any free one.", "PORT", convert=number(0, 65_535), default=0),
            Option("--no-browser", "Open no browser."),
            Option("--explorer-edits", "Let values be changed and removed."),
        ),
    ),
)
