"""WSGI apps (PEP 3333) in a replica. The entry point is `server`."""
