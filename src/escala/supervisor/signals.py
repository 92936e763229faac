"""Signals. The handlers do no work themselves: they record what was requested and wake the code that does it."""

import asyncio
import os
import signal
from collections.abc import Callable


class Signals:
    """SIGINT, SIGTERM and SIGQUIT call `stop` with a reason. SIGHUP calls `renew`, or `stop` if the terminal closed."""

    def __init__(self, stop: Callable[[str], None], renew: Callable[[], None]) -> None:
        self._stop = stop
        self._renew = renew
        self._had_terminal = _has_terminal()

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            loop.add_signal_handler(number, self._stop, number.name)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _hang_up(self) -> None:
        if self._had_terminal and not _has_terminal():
            self._stop("the terminal was closed")
        else:
            self._renew()


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal. SIGHUP is sent when that terminal closes (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
