"""What is known of the request that is being handled: for jobs that it enqueues."""

from contextvars import ContextVar

subject_of_request: ContextVar[str | None] = ContextVar("subject_of_request", default=None)
"""The `sub` of the verified access token; None without one."""
trace_of_request: ContextVar[str | None] = ContextVar("trace_of_request", default=None)
"""The traceparent header (W3C Trace Context); None without one."""
