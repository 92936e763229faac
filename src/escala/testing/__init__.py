"""For tests of services: trouble on purpose, so that a test sees what a user would see then."""

from escala.testing.chaos import Trouble, chaos

__all__ = ["Trouble", "chaos"]
