"""What an engine promises by its attributes, checked on any engine: more where it promises more."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from langchain_kv.engines.base import CollectionName, DocId

__all__ = ["check_batches", "check_order"]


def check_order(engine: Any, collection: CollectionName, ids: Sequence[DocId]) -> None:
    """Check that scans find each of the ids once, whatever the pages, in one order: that of ids where ``ordered``."""
    found = {limit: _in_pages(engine, collection, limit) for limit in (1, 2, 3, 100)}
    expected = sorted(ids, key=lambda doc_id: (isinstance(doc_id, bytes), doc_id))
    order = expected if engine.ordered else found[100]

    assert set(found[100]) == set(expected)
    assert len(found[100]) == len(expected)
    assert found == dict.fromkeys(found, order)


def _in_pages(engine: Any, collection: CollectionName, limit: int) -> list[DocId]:
    found: list[DocId] = []
    after: DocId | None = None
    while page := engine.scan_ids(collection, after=after, limit=limit):
        assert len(found) % limit == 0  # fewer than the limit mean that there are no more
        assert page == [document[0] for document in engine.scan(collection, after=after, limit=limit)]
        found += page
        after = page[-1]
    return found


def check_batches(engine: Any, collection: CollectionName, *, ids: int, batches: int) -> None:
    """Check that what is read beside a writer of batches was written: all by one batch where ``atomic_batches``."""
    keys = [f"k{number:04}" for number in range(ids)]
    written = [[(key, b'{"_id":"%b","value":%d}' % (key.encode(), batch)) for key in keys] for batch in range(batches)]
    engine.write(collection, written[0])
    failed: list[BaseException] = []
    is_done = threading.Event()

    def write() -> None:
        try:
            for batch in written[1:]:
                engine.write(collection, batch)
        except BaseException as error:
            failed.append(error)
        finally:
            is_done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[list[bytes]] = []
    while not is_done.is_set():
        seen.append(engine.read(collection, keys))
    writer.join()
    seen.append(engine.read(collection, keys))

    bodies = [[body for _, body in batch] for batch in written]
    assert not failed
    assert seen[-1] == bodies[-1]
    if engine.atomic_batches:
        assert [found for found in seen if found not in bodies] == []
    else:
        of_key = list(map(set, zip(*bodies, strict=True)))
        assert [found for found in seen if not all(map(set.__contains__, of_key, found))] == []
