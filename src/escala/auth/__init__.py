"""Sessions: access tokens that every replica verifies by itself."""

from escala.auth.middleware import Middleware, current, require
from escala.auth.principal import Principal

__all__ = ["Middleware", "Principal", "current", "require"]
