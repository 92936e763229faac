"""What is known of the request that is being handled: for jobs that it enqueues."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class RequestFact:
    """A text about the request that is being handled; None outside a request, or if it has none."""

    def __init__(self, name: str) -> None:
        self._value: ContextVar[str | None] = ContextVar(name, default=None)

    def get(self) -> str | None:
        return self._value.get()

    @contextmanager
    def to(self, value: str | None) -> Iterator[None]:
        """Set it for a block."""
        token = self._value.set(value)
        try:
            yield
        finally:
            self._value.reset(token)


subject_of_request = RequestFact("subject_of_request")
"""The `sub` of the verified access token."""
trace_of_request = RequestFact("trace_of_request")
"""The traceparent header (W3C Trace Context)."""
