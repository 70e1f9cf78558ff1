"""``lckv explore`` on a real PostgreSQL, in a real Chromium."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from explored_target import check_page_on_target, check_parts_on_target, check_removing_on_target
from sql_servers import running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    # Not pytest's directory, which only its owner may enter.
    with tempfile.TemporaryDirectory(prefix="lckv-", ignore_cleanup_errors=True) as folder:
        with running("postgresql", Path(folder)) as url:
            yield url


def test_the_page_shows_what_a_postgresql_keeps(browser: Browser, postgresql: str) -> None:
    check_page_on_target(browser, postgresql)


def test_a_value_in_a_postgresql_is_edited_and_removed_with_the_switch(browser: Browser, postgresql: str) -> None:
    check_removing_on_target(browser, postgresql)


def test_parts_of_a_listing_do_not_drift_on_a_postgresql(postgresql: str) -> None:
    check_parts_on_target(postgresql)
