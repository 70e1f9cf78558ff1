"""What the operating system says of a file, as an error of this package that tells what to do."""

from __future__ import annotations

import errno
import os
from typing import Final

from langchain_kv.errors import EngineError

__all__ = ["failed", "no_folder", "require_folder"]

_ADVICE: Final = {
    "EMFILE": "close some of this process's files, or raise its limit (ulimit -n), and try again",
    "ENFILE": "the machine has too many open files; close some and try again",
    "ENOMEM": "the machine is out of memory; try again later",
    "EINTR": "try again",
    "ENOLCK": "the machine has no locks left, or no locks on this file system; try again later",
    "ENOSPC": "the disk is full; free some space and try again",
    "EDQUOT": "the quota is used up; free some space and try again",
    "EROFS": "the file system can only be read; choose a path that this process may write to",
    "ENAMETOOLONG": "choose a shorter path",
    "ELOOP": "its links go in a circle; choose another path",
    "ENOTDIR": "a part of its path is no directory; check the path",
    "EIO": "reading or writing the disk failed; check the disk, and try again",
    "ESTALE": "a network file system lost it; keep the database on a file system of this machine",
}

_BY_NUMBER: Final = {getattr(errno, name): advice for name, advice in _ADVICE.items() if hasattr(errno, name)}

_PASSING: Final = frozenset(
    getattr(errno, name) for name in ("EMFILE", "ENFILE", "ENOMEM", "EINTR", "ENOLCK") if hasattr(errno, name)
)


def failed(attempt: str, error: OSError, advice: str) -> EngineError:
    """Make the error of an attempt that changed nothing.

    Args:
        attempt: such as "Cannot open /data/kv.db".
        error: what the operating system said.
        advice: what to do where the number of the error does not say it.
    """
    number = error.errno or 0
    made = EngineError(f"{attempt}: {error.strerror or error}; {_BY_NUMBER.get(number, advice)}")
    made.retryable = number in _PASSING
    return made


def no_folder(path: str) -> EngineError:
    """Return the error of a file that cannot be made because its directory is not there."""
    return EngineError(f"The directory {os.path.dirname(path)} does not exist; create it first")


def require_folder(path: str) -> None:
    """Refuse the path of a file whose directory is not there."""
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise no_folder(path)
