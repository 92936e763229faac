"""The place of a connection that opens after import: filled by `escala.running`, emptied at its end.

Framework code calls handlers from tasks that no context variable of the lifespan reaches, so the place is one a
process. It is the only mutable global state of the library part.
"""

from typing import Generic, TypeVar

from escala.errors import NotConnected

T = TypeVar("T")


class ConnectionHolder(Generic[T]):
    def __init__(self, what: str) -> None:
        self._what = what
        self._value: T | None = None

    def fill(self, value: T) -> None:
        if self._value is not None:
            raise RuntimeError(f"{self._what} is connected already; `escala.running` does not nest")
        self._value = value

    def empty(self) -> None:
        self._value = None

    def get(self) -> T:
        if self._value is None:
            raise NotConnected(self._what)
        return self._value
