"""``lckv explore``, and what ``lckv serve`` shows in the browser."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from chromium import browsing
from explored import Explored
from langchain_kv import KVStore
from running import Lckv
from served import LCKV, STRICT, TOKEN, Server, environment

BROWSER = """
import os, sys
from urllib.request import url2pathname
from urllib.parse import urlsplit

path = url2pathname(urlsplit(sys.argv[1]).path)
with open(path) as page, open(sys.argv[2], "w") as note:
    note.write(f"{os.stat(path).st_mode} {os.stat(os.path.dirname(path)).st_mode} {page.read()}")
"""


@pytest.fixture
def explore(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start ``lckv explore`` with a browser that notes what it is to open, in the file ``opened``."""
    (tmp_path / "browser.py").write_text(BROWSER)
    browser = f"{sys.executable} {tmp_path / 'browser.py'} %s {tmp_path / 'opened'}"
    servers: list[Server] = []

    def start(*arguments: str, **variables: str) -> Server:
        process = subprocess.Popen(
            [*LCKV, "explore", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**STRICT, BROWSER=browser, TMPDIR=str(tmp_path), **variables),
        )
        servers.append(Server(process))
        return servers[-1]

    yield start
    for server in servers:
        with server.process as process:
            process.kill()


def token_of(server: Server) -> str:
    """Return the token that it says on stderr."""
    assert server.process.stderr is not None
    return server.process.stderr.readline().split()[-1]


def ask(server: Server, token: str, route: str, **fields: str) -> tuple[int, object]:
    headers = {"Content-Type": "application/json", "Token": token}
    sent = json.dumps({"keyspace": "default_keyspace", "collection": "kv", **fields}).encode()
    reply = Explored(server.url, "").send(f"/explorer/{route}", sent, **headers)
    return reply.status, reply.json()


def filled(tmp_path: Path) -> str:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    with KVStore("kv", url) as store:
        store.mset([("a", {"b": 1})])
    return url


def test_explore_shows_a_target_on_this_machine_only_and_ends_with_0(
    tmp_path: Path, explore: Callable[..., Server]
) -> None:
    server = explore(filled(tmp_path), "--no-browser")
    token = token_of(server)

    assert urlsplit(server.url).hostname == "127.0.0.1"
    assert ask(server, token, "collections") == (
        200,
        {"collections": [{"keyspace": "default_keyspace", "name": "kv"}]},
    )
    assert ask(server, "another", "collections")[0] == 401
    status, value = ask(server, token, "value", key="a")
    assert isinstance(value, dict)
    assert (status, value["text"]) == (200, '{"b":1}')
    assert ask(server, token, "delete", key="a", version=value["version"])[0] == 403
    assert ask(server, token, "about")[1] == {
        "target": f"sqlite:{tmp_path / 'kv.db'}",
        "url": f"sqlite:{tmp_path / 'kv.db'}",
        "keyspace": "default_keyspace",
        "edits": False,
    }
    assert server.end() == (0, "", "")


def test_the_browser_is_given_the_token_by_a_file_that_only_its_owner_reads(
    tmp_path: Path, explore: Callable[..., Server]
) -> None:
    server = explore(LCKV_URL=filled(tmp_path))
    token = token_of(server)
    while not (tmp_path / "opened").exists() or not (tmp_path / "opened").read_text():
        assert server.process.poll() is None
    mode, folder_mode, page = (tmp_path / "opened").read_text().split(" ", 2)

    assert stat.S_IMODE(int(folder_mode)) == 0o700
    assert stat.S_ISREG(int(mode))
    assert re.search(r'content="0;url=([^"]+)"', page)[1] == f"{server.url}/#token={token}"  # type: ignore[index]
    command_line = Path(f"/proc/{server.process.pid}/cmdline")
    assert not command_line.exists() or token not in command_line.read_text()
    assert server.end()[0] == 0
    assert list(tmp_path.glob("lckv-explore-*")) == []


@pytest.mark.slow
def test_a_browser_that_opens_the_file_is_on_the_page_without_asking_for_the_token(
    tmp_path: Path, explore: Callable[..., Server]
) -> None:
    server = explore(filled(tmp_path))
    token = token_of(server)
    while not (tmp_path / "opened").exists() or not (tmp_path / "opened").read_text():
        assert server.process.poll() is None
    (file,) = tmp_path.glob("lckv-explore-*/open.html")
    with browsing() as browser:
        page = browser.new_page()
        page.goto(file.as_uri())
        expect(page.locator("#count")).to_have_text("1 key")
        assert page.url.startswith(server.url)
        assert token not in page.url


def test_named_collections_are_shown_without_asking_for_all(tmp_path: Path, explore: Callable[..., Server]) -> None:
    server = explore(filled(tmp_path), "--no-browser", "--collection", "kv", "--collection", "other")
    _, found = ask(server, token_of(server), "collections")

    assert isinstance(found, dict)
    assert [each["name"] for each in found["collections"]] == ["kv", "other"]


def test_explore_can_be_told_to_let_values_be_removed(tmp_path: Path, explore: Callable[..., Server]) -> None:
    server = explore(filled(tmp_path), "--no-browser", "--explorer-edits")
    token = token_of(server)
    _, value = ask(server, token, "value", key="a")

    assert isinstance(value, dict)
    assert ask(server, token, "delete", key="a", version=value["version"]) == (200, {"deleted": True})
    assert ask(server, token, "value", key="a")[0] == 404


@pytest.mark.parametrize("options", [[], ["--explorer-edits"]], ids=repr)
def test_serve_shows_what_it_keeps_and_changes_it_only_where_it_is_told_to(
    serve: Callable[..., Server], tmp_path: Path, options: list[str]
) -> None:
    server = serve("--db", filled(tmp_path), *options, LCKV_TOKEN=TOKEN)
    _, value = ask(server, TOKEN, "value", key="a")

    assert isinstance(value, dict)
    assert ask(server, TOKEN, "delete", key="a", version=value["version"])[0] == (200 if options else 403)


def test_a_target_that_is_not_named_or_not_there_is_told(lckv: Lckv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LCKV_URL", raising=False)
    monkeypatch.delenv("ASTRA_DB_API_ENDPOINT", raising=False)

    nothing, missing, memory = lckv("explore"), lckv("explore", "sqlite:missing.db"), lckv("explore", "memory:")

    assert (nothing.code, missing.code, memory.code) == (2, 3, 2)
    assert "give its URL, or set LCKV_URL" in nothing.error
    assert "There is no file" in missing.error
    assert not Path("missing.db").exists()
