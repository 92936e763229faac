"""Headers between the gateway and a replica. The gateway removes them from clients' requests."""

MAX_BODY = "X-Escala-Max-Body"
"""The route's maximum body size in bytes, for a body without Content-Length; set if the service allows more."""

CHECK = "X-Escala-Check"
"""Marks a health check by the supervisor; its value is the replica's name."""

THREADS = "X-Escala-Threads"
"""In the answer to a health check: how many requests the replica can handle at a time, if that is limited."""

PREFIX = "X-Forwarded-Prefix"
"""The prefix that the route removed, such as "/shop": clients see the service's root there. Also for a `command`."""

PREFIX_KEY = "escala.prefix"
"""The key of the same prefix in a request's scope; `root_path` differs, as it is longer in a mounted app."""
