"""What the documents say: code blocks run, links lead somewhere, names exist."""

from __future__ import annotations

import gc
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import langchain_kv
from langchain_kv.engines.memory import MemoryEngine
from langchain_kv.server.http.running import run_in_thread
from langchain_kv.testing import DataAPIServer

PROJECT = Path(__file__).parents[2]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
README = PROJECT / "README.md"
LEAST_BLOCKS = {
    "README.md": 4,
    "docs/command.md": 0,
    "docs/documents.md": 2,
    "docs/embeddings.md": 1,
    "docs/langgraph.md": 6,
    "docs/llm-cache.md": 2,
}
"""The pages whose Python is run, and how many blocks of it each has at the least."""

_BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


class Block(NamedTuple):
    language: str
    text: str
    reason: str | None


def blocks(document: Path) -> list[Block]:
    found = _BLOCK.finditer(document.read_text())
    return [Block(match["language"], match["text"], match["reason"]) for match in found]


def no_settings_from_outside() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ASTRA_DB_", "LCKV_"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"}


@pytest.mark.slow
@pytest.mark.parametrize("page", LEAST_BLOCKS)
def test_the_blocks_of_a_page_run_one_after_the_other(tmp_path: Path, page: str) -> None:
    document = PROJECT / page
    runs = {"python": [sys.executable, "-c"], "sh": ["sh", "-e", "-c"]}
    done = []
    for block in blocks(document):
        if block.reason or block.language not in runs:
            continue
        command = [*runs[block.language], block.text]
        result = subprocess.run(
            command, cwd=tmp_path, env=no_settings_from_outside(), capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{block.text}\n{result.stderr}"
        done.append(block.language)

    assert done.count("python") >= LEAST_BLOCKS[page]
    assert done.count("sh") >= (document == README)


def test_the_first_example_prints_what_its_comments_say(tmp_path: Path) -> None:
    example = next(block.text for block in blocks(README) if block.language == "python" and not block.reason)
    promised = re.findall(r"^print\(.*  # (.*)$", example, re.MULTILINE)
    result = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert promised
    assert result.stdout.splitlines() == promised
    assert example.count("\n") <= 12


def the_three_lines(store: Any) -> tuple[Any, Any, list[str]]:
    """Run the lines that fail with langchain-astradb; return the answers, the repr of an exception for one."""
    many, twice, keys = next(
        block for block in blocks(README) if "it shows what fails" in (block.reason or "")
    ).text.splitlines()
    try:
        answer = eval(many, {"store": store})
    except Exception as error:
        answer = repr(error)  # the error itself would keep the peer's connections
    exec(twice, {"store": store})
    return answer, store.mget(["a"]), eval(keys, {"store": store})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:.*deprecated as of:DeprecationWarning")
def test_the_three_lines_fail_with_the_peer_and_not_here() -> None:
    from langchain_astradb import AstraDBStore

    arguments: dict[str, Any] = {"collection_name": "kv", "token": "a token", "namespace": "default_keyspace"}
    with DataAPIServer(token="a token") as server:
        theirs = the_three_lines(AstraDBStore(**arguments, api_endpoint=server.url, environment="other"))
        listing_theirs = [received for received in server.requests if received.command == "find"][-1]
        server.reset()
        ours = the_three_lines(langchain_kv.AstraDBStore(**arguments, api_endpoint=server.url))
        listing_ours = [received for received in server.requests if received.command == "find"][-1]
    gc.collect()  # the peer's connections, which it never closes, while their warning is ignored

    assert re.match(r"\w+Exception\(.*at most 100", theirs[0])
    assert theirs[1:] == ([1], ["a"])
    assert ours == ([None] * 101, [2], ["a"])
    assert "projection" not in listing_theirs.fields
    assert listing_ours.fields["projection"] == {"value": False, "encoding": False, "body_blob": False}


@pytest.mark.slow
@pytest.mark.parametrize("language", ["python", "sh"])
def test_clients_work_against_the_local_server_as_their_page_says(tmp_path: Path, language: str) -> None:
    if language == "sh" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    interpreter = [sys.executable, "-c"] if language == "python" else ["sh", "-e", "-c"]
    environment = {**no_settings_from_outside(), "LCKV_TOKEN": "a token"}
    texts = [block.text for block in blocks(PROJECT / "docs" / "clients.md") if block.language == language]
    assert len(texts) == {"python": 2, "sh": 1}[language]
    with run_in_thread(MemoryEngine(), environment["LCKV_TOKEN"]) as url:
        for text in texts:
            assert "http://127.0.0.1:8181" in text
            command = [*interpreter, text.replace("http://127.0.0.1:8181", url)]
            result = subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
            )
            assert result.returncode == 0, f"{text}\n{result.stderr}"
            assert "errors" not in result.stdout, result.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_blocks_are_python(document: Path) -> None:
    for block in blocks(document):
        if block.language == "python":
            compile(block.text, str(document), "exec")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_within_the_project_lead_to_a_file(document: Path) -> None:
    for match in _LINK.finditer(document.read_text()):
        target = match["target"]
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, heading = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_no_machine_and_no_account(document: Path) -> None:
    text = document.read_text()

    assert not re.search(r"(?<![\w:/.])/(home|root|tmp|work|Users)/", text)
    assert not re.search(r"AstraCS:\w", text)


def test_every_new_import_of_the_table_works() -> None:
    rows = re.findall(
        r"^\| `from (\S+) import (.+?)` \| `from (\S+) import (.+?)` \|$", README.read_text(), re.MULTILINE
    )

    assert len(rows) >= 5
    for old_module, old_names, module, names in rows:
        assert names == old_names
        assert all(hasattr(importlib.import_module(module), name.strip()) for name in names.split(","))
        if old_module.startswith("langchain_astradb"):
            assert all(hasattr(importlib.import_module(old_module), name.strip()) for name in old_names.split(","))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_errors_that_documents_name_exist(document: Path) -> None:
    theirs = {
        "AttributeError",
        "ConnectionError",
        "KeyError",
        "TimeoutError",
        "TypeError",
        "UnicodeEncodeError",
        "ValueError",
    }
    named = set(re.findall(r"`(?:langchain_kv\.)?([A-Z]\w+Error)`", document.read_text())) - theirs

    assert {name for name in named if not hasattr(langchain_kv, name)} == set()


def test_the_commands_of_the_readme_exist() -> None:
    from langchain_kv.cli.dispatch import NAMES

    lines = [line for block in blocks(README) if block.language == "sh" for line in block.text.splitlines()]
    used = {words[1] for words in map(shlex.split, lines) if words[:1] == ["lckv"]}

    assert used <= set(NAMES)
    assert used >= {"serve", "backup", "restore", "get", "set", "del", "keys"}


def test_the_modules_that_the_architecture_names_exist() -> None:
    package = PROJECT / "src" / "langchain_kv"
    room = ""
    found = 0
    for line in (PROJECT / "ARCHITECTURE.md").read_text().splitlines():
        row = re.match(r"\| `([\w/]+/)` \|", line)
        room = row[1] if row else ""
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", line):
            found += 1
            assert any((base / name).exists() for base in (package, package / room, PROJECT)), name
    assert found > 60


def test_the_rooms_of_the_package_are_those_of_the_architecture() -> None:
    package = PROJECT / "src" / "langchain_kv"
    table = (PROJECT / "ARCHITECTURE.md").read_text().partition("## Where things are")[2].partition("## The way")[0]
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([\w/.]+)`", row)
    }
    rooms = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}
    modules = {path.name for path in package.glob("*.py") if not path.name.startswith("_")}

    assert {name for name in named if name.count("/") <= 1 and not name.strip("/").count("/")} == rooms | modules
    assert all((package / name).exists() for name in named)


def test_make_targets_that_documents_name_exist() -> None:
    rules = re.findall(r"^([\w -]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    for document in DOCUMENTS:
        named = re.findall(r"(?:`|^    )make ([\w-]+)", document.read_text(), re.MULTILINE)
        assert set(named) <= targets, document.name
