"""Headers that the gateway and a replica have between them. The gateway takes them from clients' requests."""

MAX_BODY = "X-Escala-Max-Body"
"""How many bytes of a body without announced length the route lets through, where its service lets more through."""

CHECK = "X-Escala-Check"
"""Marks the supervisor's question whether a replica is well; its value is the replica's name."""

THREADS = "X-Escala-Threads"
"""In the answer to that question: how many requests the replica can work on at a time, where that is limited."""

PREFIX = "X-Forwarded-Prefix"
"""Where the service's root is for clients, where the route cuts a prefix off: "/shop". For a `command` too."""

PREFIX_KEY = "escala.prefix"
"""The same in the scope of a request; the `root_path` of an app that is mounted in another is longer."""
