"""Request methods: which there are by default, which may be repeated, and which a fast parser knows.

A method is any token (RFC 9110, sections 9.1 and 16.1), so no list of them is complete.
"""

DEFAULT = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""What a route lets through unless it says otherwise."""

SAFE = ("GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY")
"""They change nothing (RFC 9110, 9.2.1; RFC 4918; RFC 3253; RFC 5323; draft-ietf-httpbis-safe-method-w-body)."""

IDEMPOTENT = (*SAFE, "PUT", "DELETE")
"""They may be repeated (RFC 9110, section 9.2.2)."""

PARSED = frozenset(
    (*IDEMPOTENT, "POST", "PATCH", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "MKCALENDAR", "ACL", "PURGE")
)
"""Of what httptools reads, the better known; for others a replica takes the slower parser (`replica.protocol`)."""
