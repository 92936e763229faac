"""Benchmarks: ``python -m benchmarks.NAME`` prints a table, then the figures as one JSON object on the last line."""
