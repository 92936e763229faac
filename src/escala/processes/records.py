"""Writing records whose loss is tolerable: a failure, such as a full disk, is reported, and all work continues."""

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
        """Suppress OSError from a block that writes `what`, and report the failure and the later recovery."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            if self.failing.get(what) != reason:
                self.failing[what] = reason  # set first: the report may have to write too
                self._emit(WriteFailed(what, reason))
        else:
            if self.failing.pop(what, None):
                self._emit(WriteRecovered(what))
