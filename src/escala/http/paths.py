"""Paths that Escala's built-in services answer."""

JWKS_PATH = "/.well-known/jwks.json"

PLATFORM_PATHS = ("/jobs", "/.well-known", "/auth")
"""They belong to the platform service; no route of a project may begin with one of them."""
