"""ASGI middleware that wraps every app of a Python replica."""
