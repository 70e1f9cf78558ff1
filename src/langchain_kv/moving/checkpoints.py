"""A file that says how far a copy came, for the next attempt."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from time import monotonic
from typing import Any, Final

from langchain_kv.errors import ConfigError, EngineFileError
from langchain_kv.moving.tally import Tally

__all__ = ["Checkpoint"]

_EVERY_S: Final = 0.5
_FORMAT: Final = "lckv_resume"


class Checkpoint:
    """How far a copy came, in a file: it is there from the first batch that the target acknowledged, until the end.

    Args:
        path: of the file.
        copy: what is copied where, in words that differ for two copies: a file of another copy is refused.
        clock: seconds, of whatever beginning.

    Attributes:
        after: every key up to this one is acknowledged; None where the source has no order, or nothing is.
        failed: of these, the ones that failed.
        reasons: why, for the first of them, by key.

    Raises:
        ConfigError: the file is of another copy, or cannot be read.
        EngineFileError: it is no such file.
    """

    def __init__(self, path: str, copy: dict[str, str], *, clock: Callable[[], float] = monotonic) -> None:
        self.path = Path(path)
        self._copy = copy
        self._clock = clock
        self._due_at = clock()
        self._unsaved = False
        self._counts: dict[str, int] = {}
        self.after: str | None = None
        self.failed = 0
        self.reasons: dict[str, str] = {}
        self._read()

    @property
    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def note(self, after: str | None, tally: Tally) -> None:
        """Note what is acknowledged now. It is in the file at once, or half a second later with the next."""
        self.after, self._counts, self.reasons = after, tally.counts, tally.reasons
        self._unsaved = True
        if self._clock() >= self._due_at:
            self.save()
            self._due_at = self._clock() + _EVERY_S

    def save(self) -> None:
        """Write what was noted, if anything was.

        Raises:
            ConfigError: the file cannot be written.
        """
        if not self._unsaved:
            return
        noted = {"after": self.after, "counts": self._counts, "failed": self.reasons}
        new = None
        try:
            # A name of its own: one made of the file's may be that of something else.
            descriptor, new = mkstemp(prefix=".lckv_resume.", dir=self.path.parent)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{json.dumps({_FORMAT: 1, **self._copy, **noted})}\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path)  # whole or not at all
        except OSError as error:
            if new is not None:
                with suppress(OSError):
                    os.unlink(new)
            reason = error.strerror or error  # without the temporary name
            raise ConfigError(f"Cannot write {self.path}, which is to say how far the copy is: {reason}.") from None
        self._unsaved = False

    def remove(self) -> None:
        """Remove the file: the copy is complete."""
        self._unsaved = False
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"Cannot read {self.path}, which is to say how far the copy came: {error}.") from None
        try:
            noted: Any = json.loads(text)
        except ValueError:
            noted = None
        if not isinstance(noted, dict) or noted.get(_FORMAT) != 1:
            raise EngineFileError(f"{self.path} does not say how far a copy came: give another file to --resume.")
        others = [name for name, value in self._copy.items() if noted.get(name) != value]
        if others:
            raise ConfigError(
                f"{self.path} is of another copy ({', '.join(others)}: {noted.get(others[0])!r:.200}, not"
                f" {self._copy[others[0]]!r:.200}): give the arguments of that one, or another file."
            )
        after, counts, reasons = noted.get("after"), noted.get("counts"), noted.get("failed")
        if not isinstance(after, str):
            return  # all is read again, and what fails then fails anew
        self.after = after
        if isinstance(counts, dict) and isinstance(counts.get("failed"), int):
            self.failed = counts["failed"]
        if isinstance(reasons, dict):
            self.reasons = {key: str(reason) for key, reason in reasons.items()}
