"""Request methods: the default ones, those that may be retried, and those that the fast parser supports.

A method is any token (RFC 9110, sections 9.1 and 16.1), so no list of them is complete.
"""

DEFAULT = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""The methods that a route allows by default."""

SAFE = ("GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY")
"""Methods without side effects (RFC 9110, 9.2.1; RFC 4918; RFC 3253; RFC 5323;
draft-ietf-httpbis-safe-method-w-body)."""

IDEMPOTENT = (*SAFE, "PUT", "DELETE")
"""Methods that may be retried (RFC 9110, section 9.2.2)."""

PARSED = frozenset(
    (*IDEMPOTENT, "POST", "PATCH", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "MKCALENDAR", "ACL", "PURGE")
)
"""The common methods that httptools can parse; for others, a replica uses the slower parser (`replica.protocol`)."""
