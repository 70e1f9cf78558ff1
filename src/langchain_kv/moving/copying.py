"""From one target to another: what a copy does, and how it goes on after an end that came too early."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Final

from langchain_kv.backends.base import Backend, Page, Stored
from langchain_kv.moving.checkpoints import Checkpoint
from langchain_kv.moving.tally import Pace, Tally
from langchain_kv.moving.values import as_bytes
from langchain_kv.moving.writing import Writer

__all__ = ["BATCH", "Batch", "copy_values", "in_batches", "pages_of"]

BATCH: Final = 1_000
"""Values of a batch, if not said otherwise."""

_PAGES_MAX: Final = 4
"""Pages of a scan that a batch is made of at the most: a page is bounded by its bytes."""

Batch = list[tuple[str, Stored]]
"""Keys, with what is stored."""


def copy_values(
    source: Backend,
    writer: Writer,
    *,
    prefix: str = "",
    bytes_only: bool = False,
    batch: int = BATCH,
    pace: Pace | None = None,
    checkpoint: Checkpoint | None = None,
    watch: Callable[[Tally], None] = lambda _: None,
) -> None:
    """Write all values of a source, or those whose keys start with a prefix. Nothing is ever deleted.

    A copy that ended too early is simply done again: what is there already, equal, is not written again. A checkpoint
    spares the reading, too, of all up to the last key that was acknowledged, where the source lists its keys in order.

    Args:
        source: where from.
        writer: where to, and how.
        prefix: literal; empty for all keys.
        bytes_only: whether text of the source is base64 of bytes, as stores of bytes keep them in documents.
        batch: values that are written together; fewer where they are large.
        pace: the bound of values a second.
        checkpoint: see there; removed at the end. It is not written by a dry run, whose caller gives none.
        watch: sees the numbers after each batch.

    Raises:
        StoreError: reading or writing failed; ``writer.tally`` says how far it came, and the checkpoint is saved.
    """
    pace = pace or Pace(None)
    after = checkpoint.after if checkpoint and source.in_key_order else None
    if checkpoint and after is not None:
        writer.tally.go_on_from(checkpoint.failed, checkpoint.reasons)
    pages = source.scan(prefix, values=True) if after is None else source.scan_after(prefix, after)
    size = min(batch, pace.batch_max or batch)
    try:
        with closing(pages):
            for some in in_batches(as_bytes(pages) if bytes_only else pages, size):
                pace.wait(len(some))
                writer.write(some)
                if checkpoint:
                    checkpoint.note(some[-1][0] if source.in_key_order else None, writer.tally)
                watch(writer.tally)
    except BaseException:
        if checkpoint:
            checkpoint.save()
        raise
    if checkpoint:
        checkpoint.remove()


def pages_of(source: Backend, prefix: str, *, bytes_only: bool = False) -> Iterable[Page]:
    """Return the pages of all values of a source."""
    pages = source.scan(prefix, values=True)
    return as_bytes(pages) if bytes_only else pages


def in_batches(pages: Iterable[Page], size: int) -> Generator[Batch]:
    """Yield what the pages have in batches of at most so many values, and of few pages. No batch is empty."""
    some: Batch = []
    begun = 0
    for page in pages:
        some += [(key, stored) for key, stored in page if stored is not None]
        begun += 1
        while len(some) >= size:
            yield some[:size]
            some = some[size:]
            begun = 1
        if begun >= _PAGES_MAX and some:
            yield some
            some, begun = [], 0
    if some:
        yield some
