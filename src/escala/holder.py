"""A holder for a connection that is opened after import. `escala.running` fills it, and empties it at its end.

A context variable would not work: frameworks call handlers in tasks that do not inherit the lifespan's context. So
there is one holder per process for each connection. Holders are the only mutable global state of the library.
"""

from typing import Generic, TypeVar

from escala.errors import NotConnected

T = TypeVar("T")


class ConnectionHolder(Generic[T]):
    def __init__(self, what: str) -> None:
        self._what = what
        self.value: T | None = None
        """The connection; None while there is none."""

    def fill(self, value: T) -> None:
        if self.value is not None:
            raise RuntimeError(f"{self._what} is already connected; `escala.running` cannot be nested")
        self.value = value

    def empty(self) -> None:
        self.value = None

    def get(self) -> T:
        if self.value is None:
            raise NotConnected(self._what)
        return self.value
