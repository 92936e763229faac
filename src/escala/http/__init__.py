"""Definitions for HTTP: problem documents, header names, methods, statuses, host names."""
