"""What stores share, counted: also those that nobody closes."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from pathlib import Path

import pytest

from langchain_kv import KVByteStore, KVStore
from langchain_kv.errors import StoreClosedError
from langchain_kv.places.embedded import release_engine
from langchain_kv.runtime.sharing import Shared
from places import acquire_engine


class Item:
    """Something that is shared."""


class User:
    """Somebody who uses it."""


def shared() -> tuple[Shared[Item], list[Item]]:
    closed: list[Item] = []
    return Shared(closed.append), closed


def test_the_last_to_release_an_item_is_told_to_close_it() -> None:
    items, _ = shared()
    first = items.acquire("a", Item)
    assert items.acquire("a", Item) is first
    assert items.release(first) is None
    assert items.release(first) is first
    assert items.release(first) is None
    assert items.acquire("a", Item) is not first


def test_a_collected_user_ends_its_use_when_another_one_comes() -> None:
    items, closed = shared()
    user: User | None = User()
    item = items.acquire("a", Item)
    items.release_with(user, item)
    user = None
    gc.collect()
    assert closed == []
    items.acquire("b", Item)
    assert closed == [item]


def test_an_item_whose_only_user_was_collected_is_taken_over_by_the_next() -> None:
    items, closed = shared()
    user: User | None = User()
    item = items.acquire("a", Item)
    items.release_with(user, item)
    user = None
    gc.collect()
    assert items.acquire("a", Item) is item
    assert closed == []
    assert items.release(item) is item


def test_a_use_that_was_ended_is_not_ended_again_by_the_collection() -> None:
    items, closed = shared()
    user: User | None = User()
    item = items.acquire("a", Item)
    items.acquire("a", Item)
    assert items.release_with(user, item).detach() is not None
    assert items.release(item) is None
    user = None
    gc.collect()
    items.acquire("b", Item)
    assert closed == []
    assert items.release(item) is item


def test_a_collection_in_the_middle_of_anything_waits_for_no_lock() -> None:
    """It may come while the very lock is held that counting needs, in the same thread."""
    items, closed = shared()
    item = items.acquire("a", Item)

    def make() -> Item:
        user = User()
        user.itself = user  # type: ignore[attr-defined]
        items.release_with(user, item)
        gone = weakref.ref(user)
        del user
        gc.collect()
        assert gone() is None
        return Item()

    done = threading.Thread(target=lambda: items.acquire("b", make), daemon=True)
    done.start()
    done.join(30)
    assert not done.is_alive()
    assert closed == [item]


# -- stores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KVStore, KVByteStore])
def test_the_file_of_a_store_that_nobody_closed_is_closed_when_the_next_is_made(
    kind: type[KVStore] | type[KVByteStore], tmp_path: Path
) -> None:
    path = tmp_path / "kv.db"
    store = kind("kv", f"sqlite:{path}")
    list(store.yield_keys())
    assert (tmp_path / "kv.db-wal").exists()
    del store
    gc.collect()
    with KVStore("kv", "memory:"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["kv.db"]


def test_a_store_that_was_not_closed_ends_no_use_of_others(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'kv.db'}"
    with KVStore("kv", url) as kept:
        dropped = KVStore("kv", url)
        dropped.mset([("a", 1)])
        closed = KVStore("kv", url)
        closed.close()
        del dropped, closed
        gc.collect()
        with KVStore("kv", "memory:"):
            assert kept.mget(["a"]) == [1]
    engine = acquire_engine(url)  # the only use of it, if all others were counted
    release_engine(engine)
    with pytest.raises(StoreClosedError):
        engine.keyspaces()


def test_a_generator_keeps_the_store_whose_keys_it_yields(tmp_path: Path) -> None:
    with KVStore("kv", f"sqlite:{tmp_path / 'kv.db'}") as store:
        store.mset([(f"{number:05}", 1) for number in range(2_500)])
    keys = KVStore("kv", f"sqlite:{tmp_path / 'kv.db'}").yield_keys()
    found = [next(keys)]
    gc.collect()
    with KVStore("kv", "memory:"):
        found += keys
    assert len(found) == 2_500
