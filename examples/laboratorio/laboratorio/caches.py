"""The caches that more than one service uses."""

from escala import Cache

flights = Cache("flights")
"""Answers of /data. Their tags are the tables that an answer was built from."""

analytics = Cache("analytics")
"""Answers of /analyze. Their tag is "snapshot"."""
