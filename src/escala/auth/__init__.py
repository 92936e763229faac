"""Sessions: access tokens, which every replica verifies on its own, without asking another service."""

from escala.auth.middleware import Middleware, current, require
from escala.auth.principal import Principal

__all__ = ["Middleware", "Principal", "current", "require"]
