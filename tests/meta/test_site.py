"""The site: it builds strictly, its links lead somewhere, it loads nothing from elsewhere, and its recipes run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from installed import need
from pytest_child import without_options

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
RUN_BY_OTHERS = {"clients.md", "documents.md", "embeddings.md", "llm-cache.md", "testing.md", "langgraph.md"}
"""Pages of docs/ whose blocks other tests run."""

_BLOCK = re.compile(
    r"(?:<!-- (?P<how>not run|file): (?P<text>[^>]+?) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def runnable_pages() -> list[str]:
    """Return the pages of docs/ that have a block which this module is to run."""
    pages = [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.glob("**/*.md"))]
    return [
        page
        for page in pages
        if page not in RUN_BY_OTHERS
        and not page.startswith("reference/")
        and any(match["language"] in ("python", "sh") for match in _BLOCK.finditer((DOCS / page).read_text()))
    ]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in without_options().items() if not name.startswith(("ASTRA_DB_", "LCKV_"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"}


NEEDS = {"recipes/fastapi.md": "fastapi", "recipes/from-diskcache.md": "diskcache"}
"""What a page's blocks import beside what any test needs."""

CELLS = """
import ast, asyncio, inspect, sys, types

namespace = {"__name__": "__main__"}


async def run():
    for cell in CELLS:
        code = compile(cell, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = types.FunctionType(code, namespace)()
        if inspect.iscoroutine(result):
            await result


asyncio.run(run())
"""
"""Runs cells as IPython does: in one namespace, in a running event loop, with ``await`` at the top."""


@pytest.mark.slow
def test_the_cells_of_the_notebook_run(tmp_path: Path) -> None:
    text = (DOCS / "recipes" / "notebook.md").read_text()
    cells = [match["code"] for match in _BLOCK.finditer(text) if match["language"] == "py"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"CELLS = {cells!r}\n{CELLS}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert len(cells) == 4
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("page", runnable_pages())
def test_the_blocks_of_a_page_run_in_an_empty_folder(tmp_path: Path, page: str) -> None:
    library = NEEDS.get(page)
    need(library if library and find_spec(library) is None else "")
    runs = {"python": [sys.executable, "-c"], "sh": ["sh", "-e", "-c"]}
    for match in _BLOCK.finditer((DOCS / page).read_text()):
        if match["how"] == "file":
            (tmp_path / match["text"]).write_text(match["code"])
        elif match["how"] is None and match["language"] in runs:
            command = [*runs[match["language"]], match["code"]]
            done = subprocess.run(
                command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, f"{match['code']}\n{done.stdout}{done.stderr}"


def test_pages_that_are_not_run_say_why() -> None:
    """A block of Python or of the shell that is not run has a reason of some words."""
    for path in DOCS.glob("**/*.md"):
        for match in _BLOCK.finditer(path.read_text()):
            assert match["how"] != "not run" or len(match["text"].split()) > 2, path


class Page(HTMLParser):
    """The links, names and loaded resources of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") != "canonical" and "href" in given:
            self.loaded.append(given["href"])
        elif "src" in given:
            self.loaded.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("mkdocs-material" if find_spec("material") is None else "")
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(directory)]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path.resolve(): Page(path.read_text()) for path in site.glob("**/*.html")}


@pytest.mark.slow
def test_every_document_is_a_page(site: Path, pages: dict[Path, Page]) -> None:
    expected = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.glob("**/*.md")}
    expected = {name.replace("README.html", "index.html") for name in expected}

    assert {path.relative_to(site.resolve()).as_posix() for path in pages} >= expected | {"index.html", "404.html"}


@pytest.mark.slow
def test_links_of_the_site_lead_to_a_page_and_a_place_on_it(site: Path, pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links begin at the root of wherever the site is put
            continue
        for link in page.links + page.loaded:
            if re.match(r"[a-z]+:", link):
                continue
            target, place = map(unquote, urldefrag(link))
            file = (path.parent / target).resolve() if target else path
            file = file / "index.html" if file.is_dir() else file
            if not file.exists() or (place and file in pages and place not in pages[file].ids):
                broken.append((path.relative_to(site.resolve()).as_posix(), link))

    assert broken == []


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    foreign = {url for page in pages.values() for url in page.loaded if re.match(r"[a-z]+:|//", url)}
    styles = "\n".join(path.read_text() for path in site.glob("**/*.css"))

    assert {url for url in foreign if not url.startswith("data:")} == set()
    assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)]*", styles) == []
