"""Every message of the package that tells the reader to do something, found in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import langchain_kv
from langchain_kv import errors

ROOT = Path(langchain_kv.__file__).parent

LEFT_OUT = {"server", "values/json_text.py"}
"""Its messages are the answers of a Data API: tests/conformance compares them with the real one's."""

VERBS = [
    "ask",
    "await",
    "bring",
    "build",
    "call",
    "check",
    "choose",
    "close",
    "convert",
    "copy",
    "create",
    "delete",
    "do",
    "download",
    "encode",
    "end",
    "finish",
    "flatten",
    "fork",
    "give",
    "grant",
    "have",
    "install",
    "keep",
    "leave",
    "make",
    "name",
    "open",
    "pass",
    "pip",
    "put",
    "raise",
    "remove",
    "repeat",
    "replace",
    "restore",
    "run",
    "say",
    "send",
    "set",
    "split",
    "start",
    "store",
    "take",
    "try",
    "use",
    "write",
]

IMPERATIVE = re.compile(rf"(?:^|[.:;,]\s+|\(|\b(?:or|and|then|please)\s+)(?:{'|'.join(VERBS)})\b(?!,)", re.IGNORECASE)

RAISERS = {*errors.__all__, "refuse", "_corrupted", "_not_ours"}


class Site(NamedTuple):
    """A place in the source that makes an error.

    Attributes:
        where: file and line.
        kind: what is called.
        text: its message, with a NUL in the place of what is put in.
    """

    where: str
    kind: str
    text: str


def sites(root: Path = ROOT) -> Iterator[Site]:
    """Yield the places that make an error whose message has an imperative."""
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if not LEFT_OUT.isdisjoint({relative.parts[0], relative.as_posix()}):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _name(node.func) in RAISERS:
                text = "\0".join(_text(argument) for argument in node.args)
                if IMPERATIVE.search(text):
                    yield Site(f"{relative}:{node.lineno}", ast.unparse(node.func), text)


def texts(root: Path = ROOT) -> list[str]:
    """Return every text of the source, with a NUL in the place of what is put in."""
    nodes = (node for path in root.rglob("*.py") for node in ast.walk(ast.parse(path.read_text())))
    return [_text(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr)]


def _name(function: ast.expr) -> str:
    while isinstance(function, ast.Attribute):
        function = function.value
    return function.id if isinstance(function, ast.Name) else ""


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
    return "\0"
