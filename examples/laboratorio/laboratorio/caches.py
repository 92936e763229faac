"""Caches that more than one service touches."""

from escala import Cache

flights = Cache("flights")
"""Answers of /data. Tags: the tables that an answer was joined from."""

analytics = Cache("analytics")
"""Answers of /analyze. Tag: snapshot."""
