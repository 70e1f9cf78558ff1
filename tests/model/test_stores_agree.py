"""Any calls of a store, in any order, are answered alike by every target, and as a dict with a clock would answer."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from langchain_kv import KVStore, UnsupportedError
from langchain_kv.runtime import clock
from places import Place, open_place

KEYS = st.sampled_from(["a", "aa", "ab", "b", "a%", "a_", "é", "\U0010ffff"])
PREFIXES = st.sampled_from([None, "a", "aa", "é", "none"])
LABELS = st.sampled_from([(), ("n",), ("n", "m"), ("n%",)])
VALUES = st.one_of(
    st.none(), st.integers(-(2**70), 2**70), st.text(max_size=3), st.just({"$x": [1, {"": None}]}), st.just([1.5, True])
)
TTLS = st.sampled_from([None, None, 5, 60])
PAIRS = st.lists(st.tuples(KEYS, VALUES), max_size=6)

Entry = tuple[Any, int | None]
"""A value, and from which second on it has expired."""


class Model:
    """What one namespace holds, as plainly as can be."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def alive(self, now_s: int) -> dict[str, Any]:
        return {key: value for key, (value, end_s) in self.entries.items() if end_s is None or end_s > now_s}

    def put(self, pairs: list[tuple[str, Any]], ttl_s: int | None, now_s: int) -> None:
        self.entries.update({key: (value, None if ttl_s is None else now_s + ttl_s) for key, value in pairs})


class Stores(RuleBasedStateMachine):
    """Two targets side by side with the model. Each namespace has a model of its own."""

    places: ClassVar[tuple[str, str]]

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000
        self._real_clock = clock._now_ns
        clock._now_ns = lambda: self.now_s * 1_000_000_000  # type: ignore[attr-defined]
        self.folder = Path(tempfile.mkdtemp())
        self.open_places = [open_place(name, self.folder / str(at)) for at, name in enumerate(self.places)]
        for at in range(len(self.places)):
            (self.folder / str(at)).mkdir()
        self.targets: list[Place] = [place.__enter__() for place in self.open_places]
        self.stores: list[KVStore] = [target.store(KVStore) for target in self.targets]
        self.models: dict[tuple[str, ...], Model] = {}

    def teardown(self) -> None:
        for place in self.open_places:
            place.__exit__(None, None, None)
        clock._now_ns = self._real_clock  # type: ignore[attr-defined]
        shutil.rmtree(self.folder)

    def model(self, labels: tuple[str, ...]) -> Model:
        return self.models.setdefault(labels, Model())

    def each(self, labels: tuple[str, ...], call: Callable[[KVStore], Any], expected: Any) -> None:
        for store in self.stores:
            assert call(store.namespace(*labels) if labels else store) == expected

    # -- writing ------------------------------------------------------------------------------------------------------

    @rule(labels=LABELS, pairs=PAIRS, ttl_s=TTLS)
    def mset(self, labels: tuple[str, ...], pairs: list[tuple[str, Any]], ttl_s: int | None) -> None:
        self.each(labels, lambda store: store.mset(pairs, ttl_s=ttl_s), None)
        self.model(labels).put(pairs, ttl_s, self.now_s)

    @rule(labels=LABELS, keys=st.lists(KEYS, max_size=4))
    def mdelete(self, labels: tuple[str, ...], keys: list[str]) -> None:
        self.each(labels, lambda store: store.mdelete(keys), None)
        for key in keys:
            self.model(labels).entries.pop(key, None)

    @rule(labels=LABELS, pairs=PAIRS, ttl_s=TTLS)
    def add(self, labels: tuple[str, ...], pairs: list[tuple[str, Any]], ttl_s: int | None) -> None:
        there = self.model(labels).alive(self.now_s)
        absent = {key: value for key, value in reversed(pairs) if key not in there}
        order = [key for key in dict.fromkeys(key for key, _ in pairs) if key in absent]
        self.each(labels, lambda store: store.add(pairs, ttl_s=ttl_s), order)
        self.model(labels).put(list(absent.items()), ttl_s, self.now_s)

    @rule(labels=LABELS, key=KEYS, value=VALUES)
    def update(self, labels: tuple[str, ...], key: str, value: Any) -> None:
        model = self.model(labels)
        old = model.alive(self.now_s).get(key)
        seen: list[Any] = []

        def change(found: Any) -> Any:
            seen.append(found)
            return value

        for store, place in zip(self.stores, self.targets, strict=True):
            one = store.namespace(*labels) if labels else store
            if place.is_http:
                with pytest.raises(UnsupportedError):
                    one.update(key, change)
                one.mset([(key, value)]) if value is not None else one.mdelete([key])
            else:
                assert one.update(key, change) == value
        assert seen == [old] * len(seen)
        end_s = None
        if not any(place.is_http for place in self.targets) and key in model.alive(self.now_s):
            end_s = model.entries[key][1]
        elif key in model.alive(self.now_s) and value is not None:
            for store, place in zip(self.stores, self.targets, strict=True):  # as over HTTP: for ever
                if not place.is_http:
                    (store.namespace(*labels) if labels else store).mset([(key, value)])
        if value is None:
            model.entries.pop(key, None)
        else:
            model.entries[key] = (value, end_s)

    @rule(labels=LABELS, prefix=PREFIXES)
    def clear(self, labels: tuple[str, ...], prefix: str | None) -> None:
        self.each(labels, lambda store: store.clear(prefix), None)
        if not labels and prefix is None:
            self.models.clear()
            return
        entries = self.model(labels).entries
        for key in [key for key in entries if key.startswith(prefix or "")]:
            del entries[key]

    @rule()
    def purge(self) -> None:
        for store in self.stores:
            store.purge()
            assert store.purge() == 0

    @rule(seconds=st.sampled_from([1, 5, 60]))
    def time_passes(self, seconds: int) -> None:
        self.now_s += seconds

    @rule()
    def open_anew(self) -> None:
        self.stores = [
            place.store(collection=store.collection.name)
            for store, place in zip(self.stores, self.targets, strict=True)
        ]

    # -- reading ------------------------------------------------------------------------------------------------------

    @rule(labels=LABELS, keys=st.lists(KEYS, max_size=5))
    def mget(self, labels: tuple[str, ...], keys: list[str]) -> None:
        alive = self.model(labels).alive(self.now_s)
        self.each(labels, lambda store: store.mget(keys), [alive.get(key) for key in keys])

    @rule(labels=LABELS, prefix=PREFIXES)
    def listing(self, labels: tuple[str, ...], prefix: str | None) -> None:
        if not labels:  # it sees the keys of the namespaces, too, in the form in which they are kept
            return
        alive = {key: one for key, one in self.model(labels).alive(self.now_s).items() if key.startswith(prefix or "")}
        self.each(labels, lambda store: sorted(store.yield_keys(prefix=prefix)), sorted(alive))
        self.each(labels, lambda store: dict(store.yield_items(prefix=prefix)), alive)
        self.each(labels, lambda store: store.count(prefix), len(alive))

    @invariant()
    def namespaces(self) -> None:
        there = sorted(labels for labels, model in self.models.items() if labels and model.alive(self.now_s))
        for store in self.stores:
            assert store.namespaces() == there


@pytest.mark.slow
@pytest.mark.parametrize("places", [("memory", "sqlite"), ("sqlite", "http+memory")], ids="+".join)
def test_any_calls_in_any_order_are_answered_alike(places: tuple[str, str]) -> None:
    class OnThese(Stores):
        pass

    OnThese.places = places
    case = OnThese.TestCase
    case.settings = settings(
        max_examples=60,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    case().runTest()
