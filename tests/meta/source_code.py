"""What the source says of the package's classes, as it is written there: signatures, docstrings, members."""

from __future__ import annotations

import ast
from collections.abc import Collection
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Final, NamedTuple

import langchain_kv

__all__ = [
    "Definition",
    "Field",
    "Member",
    "ancestors",
    "call",
    "class_stub",
    "definition",
    "fields",
    "members",
    "module_doc",
    "stub",
]

COLUMNS: Final = 100
"""Of a signature; a longer one has a line for each parameter."""

_PACKAGE: Final = Path(langchain_kv.__file__).parent


class Definition(NamedTuple):
    """A class or a type of the package, in its module's source."""

    name: str
    module: str
    source: str
    node: ast.ClassDef | ast.Assign
    doc: str

    def text(self, node: ast.AST) -> str:
        """Return a part of the source, on one line."""
        return " ".join((ast.get_source_segment(self.source, node) or "").split())

    def body(self) -> list[ast.stmt]:
        """Return what is in a class; of a type, nothing."""
        return self.node.body if isinstance(self.node, ast.ClassDef) else []

    def parents(self) -> list[ast.expr]:
        """Return what a class inherits from, as it is written."""
        return self.node.bases if isinstance(self.node, ast.ClassDef) else []


class Member(NamedTuple):
    """A public method or property, and the class that has it."""

    home: Definition
    node: ast.FunctionDef | ast.AsyncFunctionDef
    doc: str


class Field(NamedTuple):
    """A public attribute as the class has it, and the docstring below it."""

    text: str
    doc: str


# -- where names are ------------------------------------------------------------------------------------------------


@cache
def _source(module: str) -> tuple[str, ast.Module]:
    path = _PACKAGE.parent.joinpath(*module.split("."))
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")
    return source, ast.parse(source)


def module_doc(module: str) -> str:
    """Return the docstring of a module."""
    return ast.get_docstring(_source(module)[1]) or ""


@cache
def definition(name: str, module: str = "langchain_kv") -> Definition | None:
    """Return what a name means in a module: its own, or what it imports from another; None if that is not ours."""
    source, tree = _source(module)
    for node, after in zip_longest(tree.body, tree.body[1:]):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return Definition(name, module, source, node, ast.get_docstring(node) or "")
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return Definition(name, module, source, node, _text_below(after))
    for each in ast.walk(tree):
        if isinstance(each, ast.ImportFrom) and name in [alias.name for alias in each.names]:
            home = each.module or ""
            return definition(name, home) if home.startswith("langchain_kv") else None
    return None


def _text_below(node: ast.stmt | None) -> str:
    """Return the docstring that stands below what it describes."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return "\n".join(line.strip() for line in node.value.value.splitlines())
    return ""


# -- what a class has -------------------------------------------------------------------------------------------------


def ancestors(found: Definition) -> list[Definition]:
    """Return the classes of this package that a class inherits from, the nearest first."""
    bases = _bases(found)
    return list(dict.fromkeys([*bases, *(each for base in bases for each in ancestors(base))]))


def _bases(found: Definition) -> list[Definition]:
    plain = (base.value if isinstance(base, ast.Subscript) else base for base in found.parents())
    bases = (definition(base.id, found.module) for base in plain if isinstance(base, ast.Name))
    return [base for base in bases if base is not None]


def members(found: Definition, documented: Collection[str]) -> dict[str, Member]:
    """Return the public methods of a class, and of those of its bases that are not documented themselves."""
    own: dict[str, Member] = {}
    for node in found.body():
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name == "__init__" or not node.name.startswith("_"):
            own[node.name] = Member(found, node, ast.get_docstring(node) or "")
    for base in _bases(found):
        if base.name not in documented:
            own = own | {name: member for name, member in members(base, documented).items() if name not in own}
    return own


def fields(found: Definition) -> dict[str, Field]:
    """Return the public attributes that a class's body names."""
    own: dict[str, Field] = {}
    for node, after in zip_longest(found.body(), found.body()[1:]):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and not target.id.startswith("_"):
            own[target.id] = Field(found.text(node), _text_below(after))
    return own


# -- signatures -------------------------------------------------------------------------------------------------------


def call(member: Member) -> str:
    """Return how a method is called, on one line."""
    parameters = [each for each in _parameters(member.home, member.node.args) if each != "self"]
    return f"{member.node.name}({', '.join(parameters)})"


def stub(member: Member) -> str:
    """Return a method without its body."""
    home, node = member.home, member.node
    decorators = [home.text(each) for each in node.decorator_list]
    lines = [f"@{each}" for each in decorators if each not in ("abstractmethod", "override")]
    opening = f"{'async ' if isinstance(node, ast.AsyncFunctionDef) else ''}def {node.name}("
    closing = f"){f' -> {home.text(node.returns)}' if node.returns else ''}: ..."
    return "\n".join([*lines, _bracketed(opening, _parameters(home, node.args), closing)])


def class_stub(found: Definition, documented: Collection[str]) -> str:
    """Return the head of a class, its attributes, and the constructor if that has no docstring of its own."""
    assert isinstance(found.node, ast.ClassDef), found.name
    keywords = [f"{each.arg}={found.text(each.value)}" for each in found.node.keywords]
    given = [*map(found.text, found.node.bases), *keywords]
    head = _bracketed(f"class {found.name}(", given, "):") if given else f"class {found.name}:"
    lines = [field.text for field in fields(found).values()]
    constructor = members(found, documented).get("__init__")
    if constructor is not None and not constructor.doc:
        lines += [*([""] if lines else []), *stub(constructor).splitlines()]
    body = [f"    {line}".rstrip() for line in lines]
    decorators = [f"@{found.text(each)}" for each in found.node.decorator_list]
    return "\n".join([*decorators, *([head, *body] if body else [f"{head} ..."])])


def _bracketed(opening: str, parts: list[str], closing: str) -> str:
    line = opening + ", ".join(parts) + closing
    if len(line) <= COLUMNS:
        return line
    return "\n".join([opening, *(f"    {part}," for part in parts), closing])


def _parameters(home: Definition, args: ast.arguments) -> list[str]:
    def written(each: ast.arg, default: ast.expr | None = None, stars: str = "") -> str:
        annotation = f": {home.text(each.annotation)}" if each.annotation else ""
        equals = " = " if annotation else "="
        return f"{stars}{each.arg}{annotation}{f'{equals}{home.text(default)}' if default else ''}"

    positional = [*args.posonlyargs, *args.args]
    defaults = [*[None] * (len(positional) - len(args.defaults)), *args.defaults]
    parts = [written(each, default) for each, default in zip(positional, defaults, strict=True)]
    if args.posonlyargs:
        parts.insert(len(args.posonlyargs), "/")
    if args.vararg:
        parts.append(written(args.vararg, None, "*"))
    elif args.kwonlyargs:
        parts.append("*")
    parts += [written(each, default) for each, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    if args.kwarg:
        parts.append(written(args.kwarg, None, "**"))
    return parts
