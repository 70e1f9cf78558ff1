"""``lckv explore`` on a real cluster, in a real Chromium."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from cassandra_node import Node
from chromium import browsing
from explored_target import check_page_on_target, check_parts_on_target, check_removing_on_target

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


def test_the_page_shows_what_a_cluster_keeps(browser: Browser, cassandra_node: Node) -> None:
    check_page_on_target(browser, cassandra_node.url())


def test_a_value_on_a_cluster_is_edited_and_removed_with_the_switch(browser: Browser, cassandra_node: Node) -> None:
    check_removing_on_target(browser, cassandra_node.url())


def test_parts_of_a_listing_do_not_drift_on_a_cluster(cassandra_node: Node) -> None:
    check_parts_on_target(cassandra_node.url())
