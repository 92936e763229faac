"""A small backend: a web service with a cache, and a worker."""
