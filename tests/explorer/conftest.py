"""Servers with the explorer, for each test its own, and a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from chromium import browsing
from explored import Explored, exploring
from explored_page import watched


@pytest.fixture
def explored() -> Iterator[Explored]:
    with exploring() as server:
        yield server


@pytest.fixture
def editable() -> Iterator[Explored]:
    with exploring(edits=True) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, explored: Explored) -> Iterator[Page]:
    yield from watched(browser, explored)
