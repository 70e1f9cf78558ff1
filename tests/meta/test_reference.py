"""docs/reference/ is what ``make reference`` writes, and leaves nothing public out."""

from __future__ import annotations

import inspect
import re
from collections import Counter

import pytest

import langchain_kv
from langchain_kv import errors
from meta import reference
from meta.docstrings import BadDocstringError, markdown

PAGES = reference.pages()


def anchors(page: str) -> list[str]:
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


# -- the pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_the_one_that_is_made(name: str) -> None:
    path = reference.FOLDER / name
    assert path.exists(), "run: make reference"
    assert path.read_text("utf-8") == PAGES[name], "run: make reference"


def test_no_page_is_left_that_is_not_made() -> None:
    assert {path.name for path in reference.FOLDER.iterdir()} == set(PAGES), "run: make reference"


@pytest.mark.parametrize("name", sorted({*langchain_kv.__all__, *errors.__all__} - {"__version__"}))
def test_a_public_name_has_its_part_of_one_page_and_a_line_in_the_index(name: str) -> None:
    homes = [page for page, text in PAGES.items() if re.search(rf"^## {name}$", text, re.MULTILINE)]
    assert len(homes) == 1
    assert f"| [`{name}`]({homes[0]}#{name.lower()}) |" in PAGES["README.md"]


def test_every_public_method_is_shown() -> None:
    text = "\n".join(PAGES.values())
    methods = re.findall(r"^(?:async )?def (\w+)\(", text, re.MULTILINE)
    attributes = re.findall(r"^    (\w+)(?::| =) .*[^,]$", text, re.MULTILINE)
    shown = {*methods, *attributes}
    checked = 0
    for name in set(langchain_kv.__all__) - {"__version__"}:
        for attribute, member in inspect.getmembers(getattr(langchain_kv, name)):
            module = getattr(getattr(member, "fget", member), "__module__", None) or ""
            if module.startswith("langchain_kv") and not attribute.startswith("_") and not inspect.isclass(member):
                checked += 1
                assert attribute in shown, f"{name}.{attribute}"
    assert checked > 100


@pytest.mark.parametrize("name", PAGES)
def test_a_link_leads_to_one_heading(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[name]):
        path, _, anchor = target.partition("#")
        text = (reference.FOLDER / path).read_text("utf-8") if path.startswith("../") else PAGES[path or name]
        assert not anchor or anchors(text).count(anchor) == 1, target


@pytest.mark.parametrize("name", PAGES)
def test_no_two_headings_of_a_page_have_one_anchor(name: str) -> None:
    assert {anchor: times for anchor, times in Counter(anchors(PAGES[name])).items() if times > 1} == {}


def test_the_command_is_shown_alike_on_every_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "COLUMNS": "40",
        "FORCE_COLOR": "1",
        "TERM": "xterm-256color",
        "LANG": "de_DE.UTF-8",
        "LCKV_URL": "sqlite:/home/me/kv.db",
        "ASTRA_DB_API_ENDPOINT": "https://me.example",
    }.items():
        monkeypatch.setenv(name, value)
    assert reference.pages()["command.md"] == PAGES["command.md"]


def test_no_page_shows_an_object_by_its_address() -> None:
    for text in PAGES.values():
        assert not re.search(r"0x[0-9a-f]{4}|<[\w.]+ object|<class ", text)


def test_the_tree_at_the_top_of_the_errors_is_the_one_of_the_page() -> None:
    shown = re.findall(r"^ {4}([|' -]*)(\w+Error)", errors.__doc__ or "", re.MULTILINE)
    made = re.findall(r"^( *)- \[`(\w+)`\]", PAGES["errors.md"], re.MULTILINE)

    assert len(shown) == len(errors.__all__)
    assert {name: len(mark) // 3 for mark, name in shown} == {name: len(mark) // 2 for mark, name in made}


# -- docstrings as Markdown -------------------------------------------------------------------------------------------


def test_sections_become_lists_blocks_and_sentences() -> None:
    text = inspect.cleandoc(
        """Do it with ``this``.

        As::

            a  b

            c

        Args:
            name: what it is, in more than
                one line.
            other: None.

        Returns:
            What was
            done.

        Raises:
            KeyError: never, unlike OtherError.

        Example:
            >>> do()
        """
    )
    assert markdown(text, {"OtherError": "[`OtherError`](#other)"}) == inspect.cleandoc(
        """Do it with `this`.

        As:

        ```text
        a  b

        c
        ```

        **Args:**

        - `name`: what it is, in more than one line.
        - `other`: None.

        **Returns:** What was done.

        **Raises:**

        - `KeyError`: never, unlike [`OtherError`](#other).

        ```pycon
        >>> do()
        ```"""
    )


def test_what_markdown_would_take_for_marks_is_escaped() -> None:
    assert markdown("2 * 3 < 4 | ``a*b < c``", {}) == r"2 \* 3 &lt; 4 \| `a*b < c`"


@pytest.mark.parametrize("line", ["goes on without being indented.", "Two words: of which none is a name."])
def test_a_section_in_another_form_is_refused(line: str) -> None:
    with pytest.raises(BadDocstringError, match="neither"):
        markdown(f"Do it.\n\nArgs:\n    name: what\n    {line}", {})


def test_a_line_that_would_begin_a_list_is_refused() -> None:
    with pytest.raises(BadDocstringError, match="start of a list"):
        markdown(f"{'word ' * 23}word - and more", {})
