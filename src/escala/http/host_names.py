"""What a host's name is made of."""

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""A part between two dots in small letters (RFC 1123, section 2.1; at most 63 long by RFC 1035, section 2.3.4)."""
