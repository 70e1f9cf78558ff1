"""Each kind of database in turn; a server is started once in a process, and stopped at its end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sql_servers import DATABASES, running, server_of, url_of


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], str]]:
    """A function that answers the URL of a kind of database, whose server it starts where it does not run."""
    with ExitStack() as ends:
        urls: dict[str, str] = {}

        def url(name: str) -> str:
            server = server_of(name)
            if server not in urls:
                # Not pytest's directory, which only its owner may enter.
                directory = Path(
                    ends.enter_context(tempfile.TemporaryDirectory(prefix="lckv-", ignore_cleanup_errors=True))
                )
                urls[server] = ends.enter_context(running(server, directory))
            return url_of(name, urls[server])

        yield url


def _database(*names: str) -> Any:
    """Return a fixture: the URL of each of these kinds of database."""
    params = [pytest.param(name, marks=[] if name.startswith("sqlite") else pytest.mark.slow) for name in names]

    @pytest.fixture(params=params, ids=names)
    def url(request: pytest.FixtureRequest, servers: Callable[[str], str]) -> str:
        return servers(request.param)

    return url


database = _database(*DATABASES)
network = _database(*[name for name in DATABASES if not name.startswith("sqlite")])
plain_database = _database(*[name for name in DATABASES if not name.endswith("-async")])
legacy_database = _database("sqlite", "postgresql")  # where the archived SQLStore makes its table
postgresql = _database("postgresql", "postgresql-async")
mariadb = _database("mariadb", "mariadb-async")
