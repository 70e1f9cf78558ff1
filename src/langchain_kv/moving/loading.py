"""A dump back into a target."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import BinaryIO, NamedTuple

from langchain_kv.backends.base import Page, Stored
from langchain_kv.errors import EngineFileError
from langchain_kv.moving.copying import BATCH, Batch, in_batches
from langchain_kv.moving.dumps import Dump
from langchain_kv.moving.tally import Pace
from langchain_kv.moving.writing import Writer

__all__ = ["Loaded", "check_dump", "load_values"]


class Loaded(NamedTuple):
    """What is to be said of a dump after it was loaded.

    Attributes:
        problem: what is wrong with it; empty where nothing is.
        is_cut: whether that is that its end is missing.
    """

    problem: str
    is_cut: bool


def check_dump(file: BinaryIO) -> None:
    """Read a dump whole and go back to its beginning, so that nothing of a damaged one is loaded.

    One that is only cut off passes: what there is of it can be loaded.

    Args:
        file: one in which one can go back.

    Raises:
        EngineFileError: it is no dump, or of a newer form, or something in it was changed.
    """
    dump = Dump(file)
    with closing(dump.pages()) as pages:
        for _ in pages:
            pass
    if dump.problem and not dump.is_cut:
        raise EngineFileError(f"The dump is damaged: {dump.problem}. Nothing was loaded.")
    file.seek(0)


def load_values(
    dump: Dump,
    writer: Writer,
    *,
    prefix: str = "",
    batch: int = BATCH,
    pace: Pace | None = None,
    watch: Callable[[Dump], None] = lambda _: None,
) -> Loaded:
    """Write the values of a dump, or those whose keys start with a prefix; say what is wrong with it, as far as seen.

    Args:
        dump: the dump, whose header was read.
        writer: where to, and how.
        prefix: literal; empty for all keys.
        batch: values that are written together; fewer where they are large.
        pace: the bound of values a second.
        watch: sees after each batch how far it is.

    Raises:
        StoreError: writing failed; ``writer.tally`` says how far it came.
    """
    pace = pace or Pace(None)
    pages = (_only(page, prefix) for page in dump.pages())
    for some in in_batches(pages, min(batch, pace.batch_max or batch)):
        pace.wait(len(some))
        for part in _without_repeats(some):
            writer.write(part)
        watch(dump)
    return Loaded(dump.problem, dump.is_cut)


def _only(page: Page, prefix: str) -> Page:
    return [(key, stored) for key, stored in page if key.startswith(prefix)] if prefix else page


def _without_repeats(some: Batch) -> Iterable[Batch]:
    """Yield a batch in parts in which no key comes twice, as dumps have them that were put together: the last wins."""
    if len({key for key, _ in some}) == len(some):
        yield some
        return
    part: dict[str, Stored] = {}
    for key, stored in some:
        if key in part:
            yield list(part.items())
            part = {}
        part[key] = stored
    yield list(part.items())
