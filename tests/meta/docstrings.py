"""Docstrings in Google's style, as Markdown."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Final

__all__ = ["BadDocstringError", "filled", "first_sentence", "inline", "markdown", "without_blocks"]

WIDTH: Final = 120

_SECTIONS: Final = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example")
_SECTION: Final = re.compile(rf"({'|'.join(_SECTIONS)}):")
_ITEM: Final = re.compile(r"(\*{0,2}[\w.]+): (.*)")
_CAMEL: Final = r"[A-Z][a-z]*[A-Z]\w+"
_CODE_OR_NAME: Final = re.compile(rf"``(.+?)``|(?<![\w.])(?P<name>{_CAMEL})(?!\w|\.\w)|(?P<special>[*<|])")
_STARTS_A_BLOCK: Final = re.compile(r"([-+>#]|1[.)])(\s|$)")


class BadDocstringError(Exception):
    """A docstring has not the form that is rendered; the text shows the line."""


def markdown(text: str, links: Mapping[str, str]) -> str:
    """Return a docstring, cleaned of its indentation, as Markdown.

    Args:
        text: the docstring.
        links: what stands in the place of names: links to where they are documented.
    """
    parts: list[str] = []
    title, lines = "", list[str]()
    for line in [*text.splitlines(), "Args:"]:  # which ends the last
        found = _SECTION.fullmatch(line)
        if found is None:
            lines.append(line)
            continue
        body = textwrap.dedent("\n".join(lines)).strip("\n")
        parts.append(_section(title, body, links) if title else _paragraphs(body, links))
        title, lines = found[1], []
    return "\n\n".join(part for part in parts if part)


def first_sentence(text: str) -> str:
    """Return the first sentence of a docstring, or its first part where a colon ends that."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=\.) ", paragraph)[0]


def without_blocks(text: str) -> str:
    """Return a docstring without its literal blocks."""
    return "\n\n".join(part for part in text.split("\n\n") if part != "::" and not part.startswith(" "))


def inline(text: str, links: Mapping[str, str]) -> str:
    """Return text in which code is marked as in Markdown, and names are links."""

    def replaced(found: re.Match[str]) -> str:
        if found["special"]:
            return {"<": "&lt;"}.get(found["special"], "\\" + found["special"])
        if found["name"]:
            return links.get(found["name"], found["name"])
        return links.get(found[1], f"`{found[1]}`")

    return _CODE_OR_NAME.sub(replaced, " ".join(text.split()))


def filled(text: str, mark: str = "") -> str:
    """Return text in lines that are not too long, as one paragraph, or as one item of a list after its mark."""
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )
    for line in lines[1:]:
        if _STARTS_A_BLOCK.match(line.strip()):
            raise BadDocstringError(f"Markdown would take a line for the start of a list or heading: {line!r}")
    return "\n".join(lines)


def _paragraphs(text: str, links: Mapping[str, str]) -> str:
    parts: list[str] = []
    for part in filter(None, text.split("\n\n")):
        if part.startswith(" "):
            is_continued = bool(parts) and parts[-1].endswith("```")
            block = textwrap.dedent(part)
            parts[-1:] = (
                [f"{parts[-1][:-4]}\n\n{block}\n```"] if is_continued else [*parts[-1:], _fenced("text", block)]
            )
        elif part != "::":
            parts.append(filled(inline(part.removesuffix(":") if part.endswith("::") else part, links)))
    return "\n\n".join(parts)


def _section(title: str, text: str, links: Mapping[str, str]) -> str:
    if title == "Example":
        return _fenced("pycon", text)
    if title in ("Returns", "Yields"):
        return filled(f"**{title}:** {inline(text, links)}")
    items: list[tuple[str, str]] = []
    for line in text.splitlines():
        found = _ITEM.fullmatch(line)
        if found:
            items.append((found[1], found[2]))
        elif line.startswith(" ") and items:
            items[-1] = (items[-1][0], f"{items[-1][1]} {line.strip()}")
        else:
            raise BadDocstringError(f"{title} has a line that neither is 'name: meaning' nor goes on: {line!r}")
    rows = [filled(f"{links.get(name, f'`{name}`')}: {inline(told, links)}", "- ") for name, told in items]
    return f"**{title}:**\n\n" + "\n".join(rows)


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
