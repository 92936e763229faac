"""The syntax of host names."""

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""One label of a host name, in lower case (RFC 1123, section 2.1; at most 63 long by RFC 1035, section 2.3.4)."""
