"""What a command that leaves something half done behind it makes of the signals that tell it to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["cleaning_up_when_stopped"]

_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class _StoppedError(BaseException):
    """A signal came; as a BaseException it passes through whatever handles errors."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def cleaning_up_when_stopped() -> Iterator[None]:
    """Within the block let SIGTERM and SIGHUP end it as Ctrl-C does, with all that is to be cleaned up.

    A signal that is ignored, as under nohup, stays so. More than one changes nothing.

    Raises:
        SystemExit: one came; the code is what a shell reports for a program that it ended.
    """
    if threading.current_thread() is not threading.main_thread():  # where Python lets nobody handle signals
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def stop(number: int, _: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise _StoppedError(number)

    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, stop)
        yield
    except _StoppedError as stopped:
        raise SystemExit(128 + stopped.number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
