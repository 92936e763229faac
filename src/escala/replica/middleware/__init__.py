"""ASGI middleware that stands before every app of a Python replica."""
