"""For tests of services: trouble on purpose, so that a test sees what a user would see then."""

from escala.testing.chaos import Trouble, chaos
from escala.testing.jobs import run_jobs

__all__ = ["Trouble", "chaos", "run_jobs"]
