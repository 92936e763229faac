"""Headers that the gateway and a replica have between them."""

MAX_BODY = "X-Escala-Max-Body"
"""How many bytes of a body without announced length the route lets through, where its service lets more through."""
