"""The pages of the site that are files of the project's root, for mkdocs, which calls the functions of these names.

README is the first page; links between the root's files and docs/ lead from page to page.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
}
"""Each file of the root and the page that it is on the site."""

_LINK = re.compile(r"(?P<before>!?\[[^\]]*\])\((?P<target>[^)\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"<!-- file: (\S+) -->\n```(\w+)\n")
_ANCHOR_ONLY = re.compile(r"#|[a-z]+:")


def on_files(files: Files, config: Any) -> Files:
    """Add the root's files as pages."""
    root = Path(config["config_file_path"]).parent
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(root / name).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links as they are right in the project's folders into those between pages of the site."""
    at = page.file.src_uri
    here = next((name for name, known in PAGES.items() if known == at), f"docs/{at}")
    root = Path(config["config_file_path"]).parent
    parts = _FENCE.split(_FILE.sub(r'```\2 title="\1"\n', markdown))  # a reader has to see which file a block is
    parts[::2] = [_LINK.sub(lambda match: _moved(match, here, at, root), part) for part in parts[::2]]
    return "".join(parts)


def _moved(match: re.Match[str], here: str, at: str, root: Path) -> str:
    before, target = match["before"], match["target"]
    if _ANCHOR_ONLY.match(target):
        return match[0]
    path, hash_, heading = target.partition("#")
    named = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
    if named in PAGES:
        page = PAGES[named]
    elif named == "docs/reference":
        page = "reference/README.md"
    elif named.startswith("docs/"):
        page = named.removeprefix("docs/")
    elif (root / named).exists():  # it is of the project, and not on the site: its name stays, as text
        return before.removeprefix("[").removesuffix("]")
    else:
        return match[0]  # mkdocs complains of it
    return f"{before}({posixpath.relpath(page, posixpath.dirname(at) or '.')}{hash_}{heading})"
