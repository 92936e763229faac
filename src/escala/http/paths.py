"""Paths that Escala's built-in services answer."""

JWKS_PATH = "/.well-known/jwks.json"

PLATFORM_PATHS = ("/jobs", "/.well-known", "/auth")
"""Path prefixes of the platform service; a project's routes must not start with them."""
