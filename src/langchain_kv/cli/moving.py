"""What the commands that move values share: their options, how they open targets, and what they say at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Final

from langchain_kv.backends.base import Backend
from langchain_kv.backends.wrappers import Prefixed, Wrapper
from langchain_kv.cli.notes import PARTLY, fail, tell
from langchain_kv.cli.output import Output
from langchain_kv.cli.parsing import Arguments, Option
from langchain_kv.cli.targets import Target
from langchain_kv.errors import CollectionConflictError, ConfigError, EngineError, StoreError
from langchain_kv.moving.tally import Tally
from langchain_kv.moving.writing import OnExists
from langchain_kv.places.base import BackendOptions, Place
from langchain_kv.places.files import FilePlace
from langchain_kv.values.keys import shown
from langchain_kv.values.lenient import exact_numbers
from langchain_kv.values.namespaces import namespace_prefix

__all__ = ["AS_BYTES", "ON_EXISTS", "backend_of", "failed_after", "reading", "refuse_to_verify_nothing", "told"]


def _on_exists(text: str) -> OnExists:
    try:
        return OnExists(text)
    except ValueError:
        raise ValueError("fail, skip or replace") from None


ON_EXISTS: Final = Option(
    "--on-exists", "Keys there with something else: fail, skip or replace.", "WHAT", convert=_on_exists
)
AS_BYTES: Final = Option("--bytes", "All values are bytes, also those that are base64 text.")


class _InItsForm(Wrapper):
    """A collection that is written to in the form in which it was made, which over HTTP is one of four.

    Args:
        place: where it is.
        options: what is asked of the place; the form of a collection that is not there yet among them.
    """

    def __init__(self, place: Place, options: BackendOptions) -> None:
        super().__init__(place.open(options))
        self._place = place
        self._options = options

    def open(self, *, clear: bool = False) -> None:
        try:
            self._inner.open(clear=clear)
        except CollectionConflictError:
            if not self._is_other_form(clear):
                raise

    def _is_other_form(self, clear: bool) -> bool:
        """Return whether it opens in another form, which it then has."""
        for namespaced, atomic in product((False, True), repeat=2):
            other = self._place.open(replace(self._options, namespaced=namespaced, atomic=atomic))
            try:
                other.open(clear=clear)
            except CollectionConflictError:
                other.close()
            else:
                self._inner.close()
                self._inner = other
                return True
        return False


@contextmanager
def backend_of(target: Target) -> Iterator[Backend]:
    """Open the backend of a target, for as long as the block runs; what holds its values need not be there.

    Within the block, numbers of others that a float would round keep their digits.
    """
    backend = _InItsForm(target.place, target.options)
    try:
        with exact_numbers():
            yield Prefixed(backend, namespace_prefix(target.labels)) if target.labels else backend
    finally:
        backend.close()


@contextmanager
def reading(target: Target) -> Iterator[Backend]:
    """As ``backend_of``, for what must be there.

    Raises:
        EngineError: it is a file that is not.
    """
    if isinstance(target.place, FilePlace) and not os.path.lexists(target.place.path):
        raise EngineError(f"There is no file {target.place.path}, whose values are wanted: see to its path.")
    with backend_of(target) as backend:
        yield backend


def refuse_to_verify_nothing(arguments: Arguments) -> None:
    """Refuse ``--verify`` with ``--dry-run``.

    Raises:
        ConfigError: both were given.
    """
    if arguments.verify and arguments.dry_run:
        raise ConfigError("--verify and --dry-run exclude each other: nothing is written that could be read again.")


def told(output: Output, tally: Tally, *, dry_run: bool = False) -> int | None:
    """Say how many values were read, written and so on, or would be, and why some failed; return the exit code."""
    if dry_run and not output.quiet:
        output.note("nothing was written: so many would be")
    for key, reason in tally.reasons.items():
        output.note(f"{shown(key)}: {reason}")
    output.counts(**tally.counts)
    if not tally.failed:
        return None
    names = ", ".join(map(shown, tally.reasons))
    more = f" and {tally.failed - len(tally.reasons):,} more" if tally.failed > len(tally.reasons) else ""
    return fail(f"Values that failed: {names}{more}", PARTLY, "VALUES_FAILED", as_json=output.as_json)


def failed_after(output: Output, tally: Tally, error: StoreError, how_to_go_on: str) -> int:
    """Say how far something came that failed, why, and how to go on; return the exit code."""
    if tally.read:
        output.counts(**tally.counts)
        text = str(error)
        error.args = (f"{text}{'' if text.endswith('.') else '.'} {how_to_go_on}",)
    code = tell(error, as_json=output.as_json)
    return PARTLY if tally.written or tally.replaced else code
