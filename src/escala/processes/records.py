"""What is only recorded, and may fail to be: a full disk is reported, and no duty stops over it."""

import contextlib
from collections.abc import Iterator

from escala.events import Emit, WriteFailed, WriteRecovered


class Records:
    """Which records cannot be written at the moment, and why."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.failing: dict[str, str] = {}

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Report that a block could not write, and that it could again; OSError goes no further."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            if self.failing.get(what) != reason:
                self.failing[what] = reason  # first: to report it may have to write too
                self._emit(WriteFailed(what, reason))
        else:
            if self.failing.pop(what, None):
                self._emit(WriteRecovered(what))
